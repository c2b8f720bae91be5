import { resolveMx } from 'node:dns/promises'
import type {
  SMTPConnectionAuth,
  SMTPConnectionCustomAuthContext,
  SMTPConnectionOptions,
} from 'nodemailer/lib/smtp-connection'
import type { Service, Settings } from '../config.ts'

/** A server to hand a message to, and how to log in there. */
export type Hop = {
  readonly connection: SMTPConnectionOptions
  readonly login?: SMTPConnectionAuth
}

/** Passwords that the settings only name the files of. */
export type RelaySecrets = {
  readonly adminPassword?: string
  readonly smarthostPassword?: string
}

/** Hosts that are tried for one message; RFC 5321 §5.1 asks for at least two. */
const MX_HOSTS_MAX = 5
const NO_MX = new Set(['ENODATA', 'ENOTFOUND'])

const domainOf = (address: string): string => address.slice(address.lastIndexOf('@') + 1)

/** The smarthost of the settings. With a password, only over TLS with a certificate that can be verified. */
export function smarthostHop(
  relay: Extract<Settings['serving']['relay'], { by: 'smarthost' }>,
  hostname: string,
  { smarthostPassword }: RelaySecrets,
): Hop {
  const connection = {
    host: relay.host,
    port: relay.port,
    name: hostname,
    secure: relay.port === 465,
    requireTLS: relay.user !== undefined,
  }
  return relay.user === undefined || smarthostPassword === undefined
    ? { connection }
    : { connection, login: { user: relay.user, pass: smarthostPassword } }
}

/** A domain's mail servers, the preferred one first. TLS is used when it is offered (RFC 7435), not demanded. */
export async function mxHops(domain: string, hostname: string): Promise<readonly Hop[]> {
  const records = await resolveMx(domain).catch((error: NodeJS.ErrnoException) => {
    if (NO_MX.has(error.code ?? '')) return [{ exchange: domain, priority: 0 }]
    throw error
  })
  return records
    .filter(({ exchange }) => exchange !== '')
    .sort((a, b) => a.priority - b.priority)
    .slice(0, MX_HOSTS_MAX)
    .map(({ exchange }) => ({
      connection: {
        host: exchange,
        port: 25,
        name: hostname,
        opportunisticTLS: true,
        tls: { rejectUnauthorized: false },
      },
    }))
}

/** Groups addresses by their domain. */
export const byDomain = (addresses: readonly string[]): Map<string, string[]> => {
  const groups = new Map<string, string[]>()
  for (const address of addresses) {
    const domain = domainOf(address).toLowerCase()
    groups.set(domain, [...(groups.get(domain) ?? []), address])
  }
  return groups
}

/**
 * Production itself. A message that a user had submitted is first tried at its submission service on this user's
 * behalf, by the administrator's credential, so that production relays it; else it arrives as from any mail server.
 */
export function productionHops(
  settings: Settings,
  by: string | undefined,
  { adminPassword }: RelaySecrets,
): readonly Hop[] {
  const { services, hostname, addresses } = settings.production
  const submission = services.find(({ protocol }) => protocol === 'submission')
  const inbound = services.find(({ protocol }) => protocol === 'smtp')
  const towards = (service: Pick<Service, 'port' | 'tls'>): SMTPConnectionOptions => ({
    host: addresses[0]?.ipv4,
    port: service.port,
    name: hostname,
    secure: service.tls === 'implicit',
    ignoreTLS: service.tls === 'none',
    // It is dialled by address; its certificate is that of its name, from whatever authority.
    tls: { rejectUnauthorized: false, servername: hostname },
  })
  const plain = { connection: towards(inbound ?? { port: 25, tls: 'starttls' }) }
  if (by === undefined || submission === undefined || adminPassword === undefined) return [plain]
  const customAuth = { [ON_BEHALF]: onBehalf(settings, by, adminPassword) }
  return [
    { connection: { ...towards(submission), customAuth }, login: { method: ON_BEHALF } },
    plain,
  ]
}

const ON_BEHALF = 'ON-BEHALF'

/** SASL PLAIN with an authorization identity (RFC 4616), or as Dovecot's master user. */
const onBehalf =
  ({ production: { admin } }: Settings, user: string, password: string) =>
  async (context: SMTPConnectionCustomAuthContext): Promise<void> => {
    const identities =
      admin.method === 'authzid' ? [user, admin.user] : ['', `${user}*${admin.user}`]
    const token = Buffer.from([...identities, password].join('\0')).toString('base64')
    const { status, text } = await context.sendCommand(`AUTH PLAIN ${token}`)
    if (status !== 235) throw new Error(`production refused the administrator's login: ${text}`)
  }
