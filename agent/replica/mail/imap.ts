import { readFile } from 'node:fs/promises'
import type { ConnectionOptions } from 'node:tls'
import { ImapFlow, type ImapFlowOptions } from 'imapflow'
import type { Settings } from '../../config.ts'

/** A peer that could not be reached, or fell silent in the middle. Trying again later is all that helps. */
export class PeerUnreachable extends Error {
  override readonly name = 'PeerUnreachable'
  readonly peer: string

  constructor(peer: string, because: string, cause?: unknown) {
    super(`${peer}: ${because}`, { cause })
    this.peer = peer
  }
}

/** A login that was refused: no retry helps until a person has changed something. */
export class CredentialRefused extends Error {
  override readonly name = 'CredentialRefused'
  readonly peer: string
  readonly user: string

  constructor(peer: string, user: string, answer: string, advice: string, cause?: unknown) {
    super(`${peer} refused the login for account ${user} (${answer}). ${advice}`, { cause })
    this.peer = peer
    this.user = user
  }
}

/** The peer showed a certificate that is not the one in the settings, or that is not valid today. */
export class CertificateUnexpected extends Error {
  override readonly name = 'CertificateUnexpected'
  readonly peer: string

  constructor(peer: string, because: string, cause?: unknown) {
    super(
      `${peer} showed a certificate other than production.tls.certificateFile (${because}). ` +
        'Put the certificate that production uses there',
      { cause },
    )
    this.peer = peer
  }
}

/** A peer that answered a command with NO or BAD, or in a way that cannot be understood. */
export class PeerRefused extends Error {
  override readonly name = 'PeerRefused'
  readonly peer: string

  constructor(peer: string, because: string, cause?: unknown) {
    super(`${peer}: ${because}`, { cause })
    this.peer = peer
  }
}

/** Port on 127.0.0.1 where the replicator's Dovecot answers IMAP, for this agent only. */
export const REPLICA_IMAP_PORT = 8143
/** The master user by which the agent opens every account of the replica. */
export const REPLICA_MASTER_USER = 'understudy'

export type ReplicaAccess = {
  readonly key: string
  readonly port?: number
}

const CONNECT_MS = 5_000
const GREETING_MS = 5_000
/** Longest silence in the middle of a command; a server that is busy sends something sooner. */
const SILENCE_MS = 60_000
/** A message is refused by the appliance above this size, and no line of IMAP is longer than a literal. */
const LITERAL_BYTES_MAX = 1_000_000_000

const COMMON: ImapFlowOptions = {
  logger: false,
  disableAutoIdle: true,
  disableCompression: true,
  // IMAP4rev2 has no LSUB, which alone tells of subscribed names without a folder.
  disableIMAP4rev2: true,
  connectionTimeout: CONNECT_MS,
  greetingTimeout: GREETING_MS,
  socketTimeout: SILENCE_MS,
  maxLiteralSize: LITERAL_BYTES_MAX,
  maxLineLength: LITERAL_BYTES_MAX,
  clientInfo: { name: 'Understudy' },
}

/**
 * Opens an account at production with the administrator's credential. The connection has no mailbox selected and
 * does not go into IDLE by itself; who gets it ends it (`logout()` or `close()`).
 * @throws {PeerUnreachable} {CredentialRefused} also when a file cannot be read {CertificateUnexpected}
 */
export async function openProduction(
  settings: Settings,
  user: string,
  options: ImapFlowOptions = {},
): Promise<ImapFlow> {
  const { addresses, admin, hostname, tls } = settings.production
  const host = addresses[0]?.ipv4 ?? hostname
  const peer = `production (IMAP ${host}:${admin.imapPort})`
  const read = (file: string) =>
    readFile(file, 'utf8').catch((error: unknown) => {
      throw new CredentialRefused(peer, user, String(error), `Make ${file} readable`, error)
    })
  const password = (await read(admin.passwordFile)).replace(/\r?\n$/, '')
  const auth =
    admin.method === 'master-user'
      ? { user: `${user}*${admin.user}`, pass: password }
      : { user: admin.user, pass: password, authzid: user, loginMethod: 'AUTH=PLAIN' }
  const encrypted = admin.imapTls !== 'none'
  const client = new ImapFlow({
    ...COMMON,
    host,
    port: admin.imapPort,
    secure: admin.imapTls === 'implicit',
    // ImapFlow refuses `doSTARTTLS` beside `secure`.
    ...(admin.imapTls === 'implicit' ? {} : { doSTARTTLS: encrypted }),
    auth,
    ...(encrypted ? { servername: hostname, tls: pinnedTo(await read(tls.certificateFile)) } : {}),
    ...options,
  })
  return await connected(client, {
    peer,
    user,
    advice:
      'Check production.admin (user, passwordFile, method), that it may open this account, ' +
      'and that the account exists',
  })
}

/** Opens an account of the replica, on this machine. @throws {PeerUnreachable} {CredentialRefused} */
export async function openReplica(
  access: ReplicaAccess,
  user: string,
  options: ImapFlowOptions = {},
): Promise<ImapFlow> {
  const client = new ImapFlow({
    ...COMMON,
    host: '127.0.0.1',
    port: access.port ?? REPLICA_IMAP_PORT,
    secure: false,
    doSTARTTLS: false,
    auth: { user: `${user}*${REPLICA_MASTER_USER}`, pass: access.key },
    ...options,
  })
  const advice = 'This is a fault of the appliance itself: its key and its Dovecot do not agree'
  return await connected(client, { peer: 'the replica', user, advice })
}

/** An error of a command on an open connection as `PeerUnreachable` or `PeerRefused`; any other as it is. */
export function asPeerError(error: unknown, peer: string): unknown {
  if (!(error instanceof Error)) return error
  const { code, responseStatus, responseText } = factsOf(error)
  if (LOST.test(code)) return new PeerUnreachable(peer, error.message, error)
  if (responseStatus !== '' || GARBLED.test(code))
    return new PeerRefused(peer, `${responseStatus} ${responseText || error.message}`.trim(), error)
  return error
}

/** ImapFlow's own codes for a lost connection, and those of the operating system. */
const LOST = /^(NoConnection|EConnectionClosed|StateLogout|ClosedAfter.*|.*TIMEOUT|E[A-Z]+)$/
const GARBLED = /^(Parser.*|Invalid.*|.*TooLarge|NotFound|UnexpectedTag|ResponseProcessingFailed)$/

type Login = { readonly peer: string; readonly user: string; readonly advice: string }

async function connected(client: ImapFlow, login: Login): Promise<ImapFlow> {
  // Whatever breaks the connection also rejects the command in progress, or shows as `usable: false`.
  client.on('error', () => {})
  try {
    await client.connect()
    return client
  } catch (error: unknown) {
    client.close()
    throw classified(error, login)
  }
}

function classified(error: unknown, { peer, user, advice }: Login): unknown {
  if (!(error instanceof Error)) return error
  const { authenticationFailed, serverResponseCode, tlsFailed, code, response } = factsOf(error)
  if (
    authenticationFailed &&
    serverResponseCode !== 'UNAVAILABLE' &&
    serverResponseCode !== 'LIMIT'
  )
    return new CredentialRefused(peer, user, response || error.message, advice, error)
  if (/CERT|SIGNATURE|ISSUER/.test(code) || (tlsFailed && /certificate/i.test(error.message)))
    return new CertificateUnexpected(peer, error.message, error)
  return new PeerUnreachable(peer, response || error.message || code, error)
}

function factsOf(error: Error) {
  const facts = new Map(Object.entries(error))
  const text = (key: string) => {
    const value: unknown = facts.get(key)
    return typeof value === 'string' ? value : ''
  }
  return {
    authenticationFailed: facts.get('authenticationFailed') === true,
    tlsFailed: facts.get('tlsFailed') === true,
    serverResponseCode: text('serverResponseCode'),
    responseStatus: text('responseStatus'),
    responseText: text('responseText'),
    code: text('code'),
    response: text('response'),
  }
}

/**
 * Trusts exactly one certificate (the first of the file), whoever signed it and whatever name it bears: what matters
 * is that the peer is production, whose certificate the administrator gave us.
 */
const pinnedTo = (certificatePem: string): ConnectionOptions => ({
  ca: firstCertificate(certificatePem),
  allowPartialTrustChain: true,
  checkServerIdentity: () => undefined,
})

const firstCertificate = (pem: string): string =>
  /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/.exec(pem)?.[0] ?? pem
