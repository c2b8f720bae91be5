import type { Server, Socket } from 'node:net'
import { join } from 'node:path'
import { domainToASCII } from 'node:url'
import {
  SMTPServer,
  type SMTPServerAuthentication,
  type SMTPServerDataStream,
  type SMTPServerSession,
} from 'smtp-server'
import type { Log } from '../../firmware/log.ts'
import { type Service, type ServiceName, type Settings, serviceName } from '../config.ts'
import type { Paths } from '../paths.ts'
import { accountOf } from './accounts.ts'
import type { Admit } from './auth.ts'
import { mailDate } from './bounce.ts'
import { type Delivered, Delivery } from './delivery.ts'
import { resolve } from './directory.ts'
import { Gate, GateShut } from './gate.ts'
import { MailQueue, QueueFull, type Recipient } from './queue.ts'
import type { RelaySecrets } from './routes.ts'
import { type LoginVerdict, verifyLogin } from './sasl.ts'

export type MailFrontOptions = {
  readonly settings: Settings
  readonly paths: Paths
  readonly users: ReadonlyMap<string, unknown>
  /** Must have made the takeover gap of a user before it answers `ready`. */
  readonly admit: Admit
  readonly delivered: Delivered
  /** In PEM, as production presents them. */
  readonly tls: { readonly certificate: string; readonly key: string }
  /** Makes the listening socket of a service, inside the service namespace. */
  readonly listen: (service: Service) => Promise<Server>
  readonly log: Log
  readonly secrets?: RelaySecrets
  readonly retryMs?: readonly number[]
  readonly queueLimits?: { readonly entriesMax?: number; readonly reserveBytes?: number }
}

const CLIENTS_MAX = 500
const RECIPIENTS_MAX = 1_000
/** RFC 5321 §4.5.3.2.7. */
const SILENCE_MS = 300_000
/** The last pass before failback is shorter; a sender who waits longer had better ask production. */
const BARRIER_MS = 10_000
const CLOSE_MS = 1_000

/** A reply to the client, its enhanced status code (RFC 3463) first in the text. */
class Reply extends Error {
  override readonly name = 'Reply'
  readonly responseCode: number

  constructor(responseCode: number, text: string) {
    super(text)
    this.responseCode = responseCode
  }
}

const unavailable = () => new Reply(451, '4.3.0 This mailbox is not available at present')

/**
 * Answers production's SMTP and submission ports: what it has acknowledged is on the medium, and is delivered exactly
 * once. It begins paused: nothing is acknowledged, nothing is delivered to mailboxes until `resume`.
 */
export class MailFront {
  readonly #options: MailFrontOptions
  readonly #gate = new Gate()
  readonly #queue: MailQueue
  readonly #delivery: Delivery
  readonly #servers = new Map<ServiceName, SMTPServer>()
  readonly #listeners: Server[] = []
  readonly #gone = new WeakSet<SMTPServerSession>()

  constructor(options: MailFrontOptions) {
    const { settings, paths, users, admit, delivered, log, secrets = {}, retryMs } = options
    this.#options = options
    this.#queue = new MailQueue({ directory: paths.queue, log, ...options.queueLimits })
    this.#delivery = new Delivery({
      ...{ settings, users, admit, delivered, log, secrets },
      ...(retryMs === undefined ? {} : { retryMs }),
      queue: this.#queue,
      gate: this.#gate,
      lmtp: join(paths.run, 'service', 'lmtp'),
    })
    for (const service of settings.production.services)
      if (service.protocol === 'smtp' || service.protocol === 'submission')
        this.#servers.set(serviceName(service), this.#server(service))
  }

  /** How many accepted messages have recipients left. */
  get queued(): number {
    return this.#queue.length
  }

  /** Takes up what an earlier run had accepted, and listens. @throws NodeJS.ErrnoException */
  async listen(): Promise<void> {
    await this.#queue.open()
    for (const entry of this.#queue.entries) this.#delivery.add(entry)
    for (const service of this.#options.settings.production.services) {
      const server = this.#servers.get(serviceName(service))
      if (server === undefined) continue
      const listener = await this.#options.listen(service)
      listener.on('connection', (socket) => server.server.emit('connection', socket))
      this.#listeners.push(listener)
    }
  }

  /** Serves a connection that was accepted elsewhere, from its first octet. @throws {RangeError} */
  accept(service: ServiceName, socket: Socket): void {
    const server = this.#servers.get(service)
    if (server === undefined) throw new RangeError(`${service} is not served here`)
    server.server.emit('connection', socket)
  }

  /** The write barrier: when it answers, nothing is being acknowledged or delivered to mailboxes, and nothing will be. */
  async pause(): Promise<void> {
    await this.#gate.shut()
  }

  resume(): void {
    this.#gate.open()
    this.#delivery.pump()
  }

  /** Hands what is left to production. To be called while paused. Answers how many messages remain. */
  async flushToProduction(): Promise<number> {
    return await this.#delivery.flushToProduction()
  }

  /** Answers when no connection is open and no delivery is running. */
  async close(): Promise<void> {
    this.#gate.abandon()
    for (const listener of this.#listeners) listener.close()
    const servers = [...this.#servers.values()]
    await Promise.all([
      this.#delivery.close(),
      ...servers.map((server) => new Promise<void>((closed) => server.close(closed))),
    ])
  }

  #server(service: Service): SMTPServer {
    const { settings, tls, log } = this.#options
    const { production, serving } = settings
    const server = new SMTPServer({
      name: production.hostname,
      banner: '',
      secure: service.tls === 'implicit',
      cert: tls.certificate,
      key: tls.key,
      size: serving.messageBytesMax,
      // Anybody may bring mail for our users to port 25; submission is for those who log in.
      authOptional: service.protocol === 'smtp',
      allowInsecureAuth: service.tls === 'none',
      disabledCommands: service.tls === 'starttls' ? [] : ['STARTTLS'],
      disableReverseLookup: true,
      maxClients: CLIENTS_MAX,
      maxRecipients: RECIPIENTS_MAX,
      socketTimeout: SILENCE_MS,
      closeTimeout: CLOSE_MS,
      logger: false,
      onAuth: (auth, session, done) => {
        this.#login(auth, session).then((user) => done(null, { user }), done)
      },
      onRcptTo: ({ address }, session, done) => {
        this.#recipient(address, session).then(() => done(), done)
      },
      onData: (stream, session, done) => {
        this.#message(stream, session).then(
          (id) => done(null, `2.0.0 Ok: queued as ${id}`),
          (error: unknown) => done(this.#refusal(stream, error)),
        )
      },
      onClose: (session) => this.#gone.add(session),
    })
    server.on('error', (error) =>
      log('debug', 'smtp.disconnected', { service: serviceName(service), because: error.message }),
    )
    return server
  }

  /** The account's name. @throws {Reply} */
  async #login(auth: SMTPServerAuthentication, session: SMTPServerSession): Promise<string> {
    const { settings, paths, users, log } = this.#options
    const socket = join(paths.run, 'service', 'auth-client')
    const { username: user = '', password } = auth
    const verdict: LoginVerdict = await verifyLogin(socket, {
      user,
      password: password ?? '',
      client: clientAddress(session),
    })
    const account = accountOf(user, settings.production.domains, users)
    if (verdict === 'accepted' && account !== undefined) return account
    log('info', 'submission.refused', { verdict, client: clientAddress(session) })
    if (verdict === 'unavailable') throw new Reply(454, '4.7.0 Temporary authentication failure')
    throw new Reply(535, '5.7.8 Authentication failed')
  }

  /** @throws {Reply} unless mail to this address can be taken from this client */
  async #recipient(address: string, session: SMTPServerSession): Promise<void> {
    const { settings, users, admit } = this.#options
    const destination = resolve(address, settings, users)
    if (destination === 'elsewhere') {
      if (accountIn(session) === undefined) throw new Reply(554, '5.7.1 Relay access denied')
    } else if (destination === 'unknown-local') {
      if (settings.accounts.complete) throw new Reply(550, '5.1.1 No such mailbox')
      throw new Reply(451, '4.3.0 This mailbox is not known at present')
    } else {
      const admissions = await Promise.all(destination.users.map((user) => admit(user)))
      if (!admissions.every((admission) => admission === 'ready')) throw unavailable()
    }
  }

  /** Answers the queue's id when the message is ours. @throws {Reply} {QueueFull} {GateShut} */
  async #message(stream: SMTPServerDataStream, session: SMTPServerSession): Promise<string> {
    const by = accountIn(session)
    const from = session.envelope.mailFrom === false ? '' : session.envelope.mailFrom.address
    const recipients = this.#recipients(session)
    const staged = await this.#queue.stage(
      { from, recipients, ...(by === undefined ? {} : { by }) },
      (id) => received(id, session, this.#options.settings.production.hostname),
      bounded(stream),
    )
    try {
      const entry = await this.#gate.pass(async () => {
        // Whoever has hung up has heard nothing from us, and comes again.
        if (this.#gone.has(session)) throw new Reply(421, '4.4.2 The connection is closed')
        return await staged.commit()
      }, BARRIER_MS)
      this.#delivery.add(entry)
      return entry.envelope.id
    } catch (error: unknown) {
      await staged.discard()
      throw error
    }
  }

  #recipients(session: SMTPServerSession): Recipient[] {
    const { settings, users } = this.#options
    const locals = new Map<string, Recipient>()
    const remotes: Recipient[] = []
    for (const { address } of session.envelope.rcptTo) {
      const destination = resolve(address, settings, users)
      if (destination === 'elsewhere')
        remotes.push({ kind: 'remote', address: withAsciiDomain(address) })
      else if (destination === 'unknown-local') throw unavailable()
      else for (const user of destination.users) locals.set(user, { kind: 'local', user, address })
    }
    return [...locals.values(), ...remotes]
  }

  #refusal(stream: SMTPServerDataStream, error: unknown): Reply {
    // The client sends the rest of its message in any case, and hears the reply after it.
    stream.resume()
    if (error instanceof Reply) return error
    if (error instanceof GateShut) return new Reply(451, '4.3.2 Please try again')
    if (error instanceof QueueFull) return new Reply(452, '4.3.1 Insufficient system storage')
    const hungUp = error instanceof Error && 'code' in error && error.code === 'ECONNECTION'
    this.#options.log(hungUp ? 'debug' : 'error', 'message.refused', { error })
    return new Reply(451, '4.3.0 The message could not be stored, please try again')
  }
}

/** The library answers domains in Unicode, which servers without SMTPUTF8 would not take. */
const withAsciiDomain = (address: string): string => {
  const at = address.lastIndexOf('@') + 1
  return `${address.slice(0, at)}${domainToASCII(address.slice(at)) || address.slice(at)}`
}

const accountIn = (session: SMTPServerSession): string | undefined =>
  typeof session.user === 'string' ? session.user : undefined

const clientAddress = ({ remoteAddress }: SMTPServerSession): string =>
  remoteAddress.replace(/^::ffff:/, '')

/** The message as far as its size is allowed. @throws {Reply} at the end of one that is too big */
async function* bounded(stream: SMTPServerDataStream): AsyncGenerator<Buffer> {
  for await (const chunk of stream.iterator({ destroyOnReturn: false }))
    if (!stream.sizeExceeded) yield chunk as Buffer
  if (stream.sizeExceeded) throw new Reply(552, '5.3.4 The message is too big')
}

/** The trace header (RFC 5321 §4.4), by which a delivered message is found again. */
const received = (id: string, session: SMTPServerSession, hostname: string): string => {
  const [only, ...others] = session.envelope.rcptTo
  const client = clientAddress(session)
  const literal = client.includes(':') ? `IPv6:${client}` : client
  const hello = `${session.hostNameAppearsAs}`.replaceAll(/[^\x21-\x7e]/g, '?')
  const to = only !== undefined && others.length === 0 ? `\r\n\tfor <${only.address}>` : ''
  return (
    `Received: from ${hello} ([${literal}])\r\n` +
    `\tby ${hostname} with ${session.transmissionType} id ${id}${to};\r\n` +
    `\t${mailDate(new Date())}\r\n`
  )
}
