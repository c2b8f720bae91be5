import { createConnection } from 'node:net'
import type { Readable } from 'node:stream'
import SMTPConnection, {
  type SMTPConnectionAuth,
  type SMTPConnectionOptions,
  type SMTPEnvelope,
} from 'nodemailer/lib/smtp-connection'

/** What became of one recipient. `later`: not yet; `never`: refused for good, in the words of the one who refused. */
export type Outcome =
  | { readonly name: 'done' }
  | { readonly name: 'later'; readonly because: string }
  | { readonly name: 'never'; readonly because: string }

/** A refusal that is not an answer of the peer's: whether the message arrived is not known. */
export class OutcomeUnknown extends Error {
  override readonly name = 'OutcomeUnknown'
}

export type Mail = {
  /** Empty for a bounce. */
  readonly from: string
  readonly to: readonly string[]
  readonly message: Readable
}

const CONNECT_MS = 30_000
const IDLE_MS = 300_000

type Refusal = Error & {
  readonly code?: string
  readonly responseCode?: number
  readonly response?: string
  readonly recipient?: string
  readonly rejectedErrors?: readonly Refusal[]
}

const outcomeOf = (refusal: Refusal): Outcome => ({
  name: (refusal.responseCode ?? 0) >= 500 ? 'never' : 'later',
  because: refusal.response ?? refusal.message,
})

/** One connection to an SMTP or LMTP server, for one message after the other. */
export class Transport {
  readonly #connection: SMTPConnection

  private constructor(connection: SMTPConnection) {
    this.#connection = connection
  }

  /** Connects, says hello and logs in if that is asked for. @throws Error when the server is not there or refuses */
  static async open(
    options: SMTPConnectionOptions,
    login?: SMTPConnectionAuth,
  ): Promise<Transport> {
    const connection = new SMTPConnection({
      connectionTimeout: CONNECT_MS,
      greetingTimeout: CONNECT_MS,
      socketTimeout: IDLE_MS,
      ...options,
    })
    const opened = new Promise<void>((resolve, reject) => {
      connection.once('error', reject)
      connection.once('end', () => reject(new Error('the connection was closed')))
      connection.connect((error) => (error ? reject(error) : resolve()))
    })
    try {
      await opened
      if (login !== undefined)
        await new Promise<void>((resolve, reject) => {
          connection.login(login, (error) => (error ? reject(error) : resolve()))
        })
    } catch (error: unknown) {
      connection.close()
      throw error
    }
    // An error between two messages shows itself again at the next one.
    connection.on('error', () => {})
    return new Transport(connection)
  }

  /** LMTP (RFC 2033) over a unix socket. */
  static async openLmtp(path: string, hostname: string): Promise<Transport> {
    const socket = createConnection(path)
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve)
      socket.once('error', reject)
    })
    return Transport.open({ connection: socket, lmtp: true, name: hostname, ignoreTLS: true })
  }

  /**
   * Sends a message and answers what became of each recipient.
   * @throws {OutcomeUnknown} when the connection ended before the server had answered
   */
  send({ from, to, message }: Mail): Promise<Map<string, Outcome>> {
    return new Promise((resolve, reject) => {
      const cut = () => reject(new OutcomeUnknown('the connection was closed'))
      this.#connection.once('end', cut)
      // A message that cannot be read to its end must not be ended by us: the server would take the part for the whole.
      message.once('error', () => this.close())
      const envelope: SMTPEnvelope = { from: from || false, to: [...to], use8BitMime: true }
      this.#connection.send(envelope, message, (error, info) => {
        this.#connection.off('end', cut)
        message.destroy()
        const refusal = error as Refusal | null
        if (refusal !== null && refusal.responseCode === undefined && refusal.code !== 'EENVELOPE')
          return reject(new OutcomeUnknown(refusal.message, { cause: error }))
        const common: Outcome = refusal === null ? { name: 'done' } : outcomeOf(refusal)
        const outcomes = new Map<string, Outcome>(to.map((address) => [address, common]))
        const single = refusal === null ? info?.rejectedErrors : refusal.rejectedErrors
        for (const refused of (single ?? []) as readonly Refusal[])
          outcomes.set(refused.recipient ?? '', outcomeOf(refused))
        return resolve(outcomes)
      })
    })
  }

  close(): void {
    this.#connection.close()
  }

  /** Says QUIT and leaves. */
  quit(): void {
    this.#connection.quit()
  }
}
