import { strict as assert } from 'node:assert'
import type { ImapFlow } from 'imapflow'
import { PeerUnreachable } from './imap.ts'

export type ConnectionsOptions = {
  readonly open: (user: string) => Promise<ImapFlow>
  /** How many connections may wait for their next use; those longest unused are closed. */
  readonly limit: number
  /** Something changed in an account's INBOX while its connection waited in IDLE (RFC 2177). */
  readonly onChange: (user: string) => void
}

type Warm = {
  readonly client: ImapFlow
  busy: boolean
  /** The server told of a change while the connection was in use. */
  noticed: boolean
  /** The way into IDLE, which must not be crossed by a command. */
  resting: Promise<void>
}

/** Connections to accounts at production that stay open between their uses, each then in IDLE on INBOX. */
export class Connections {
  readonly #options: ConnectionsOptions
  /** In the order of their last use. */
  readonly #warm = new Map<string, Warm>()
  #closing = new AbortController()

  constructor(options: ConnectionsOptions) {
    this.#options = options
  }

  get size(): number {
    return this.#warm.size
  }

  /**
   * Lends the account's connection, opened if need be. It is closed when `work` fails.
   * @throws whatever `open` and `work` throw
   */
  async use<T>(user: string, work: (client: ImapFlow) => Promise<T>): Promise<T> {
    const warm = await this.#take(user)
    try {
      const result = await work(warm.client)
      this.#giveBack(user, warm)
      return result
    } catch (error: unknown) {
      this.#drop(user, warm)
      throw error
    }
  }

  /** Closes all of them; work in progress fails, and so does opening. */
  close(): void {
    this.#closing.abort()
    this.#closing = new AbortController()
    for (const [user, warm] of this.#warm) this.#drop(user, warm)
  }

  async #take(user: string): Promise<Warm> {
    const known = this.#warm.get(user)
    assert(known?.busy !== true, 'an account has one connection, used by one at a time')
    if (known !== undefined) {
      known.busy = true
      await known.resting
      if (known.client.usable) return known
      this.#drop(user, known)
    }
    const client = await this.#open(user)
    const warm: Warm = { client, busy: true, noticed: false, resting: Promise.resolve() }
    this.#warm.set(user, warm)
    const notice = () => {
      if (warm.busy) warm.noticed = true
      else this.#options.onChange(user)
    }
    client.on('exists', notice)
    client.on('expunge', notice)
    client.on('flags', notice)
    client.on('close', () => this.#drop(user, warm))
    return warm
  }

  /** A server that is silent must not hold up `close`. */
  #open(user: string): Promise<ImapFlow> {
    const { signal } = this.#closing
    return new Promise((resolve, reject) => {
      const abort = () => reject(new PeerUnreachable('production', 'the connection was given up'))
      signal.addEventListener('abort', abort)
      this.#options
        .open(user)
        .then((client) => (signal.aborted ? client.close() : resolve(client)), reject)
        .finally(() => signal.removeEventListener('abort', abort))
    })
  }

  #giveBack(user: string, warm: Warm): void {
    // Taken out and put in again: a Map keeps the order of insertion.
    if (this.#warm.delete(user)) this.#warm.set(user, warm)
    warm.busy = false
    warm.resting = this.#rest(user, warm)
    const idle = [...this.#warm].filter(([, { busy }]) => !busy)
    const tooMany = Math.max(0, this.#warm.size - this.#options.limit)
    for (const [name, oldest] of idle.slice(0, tooMany)) this.#drop(name, oldest)
  }

  async #rest(user: string, warm: Warm): Promise<void> {
    const { client } = warm
    try {
      const selected = client.mailbox === false ? undefined : client.mailbox.path
      if (selected !== 'INBOX') await client.mailboxOpen('INBOX', { readOnly: true })
      client.idle().catch(() => this.#drop(user, warm))
      // `idle` has sent its command when this turn of the event loop ends.
      await new Promise((resolve) => setImmediate(resolve))
    } catch {
      // A connection that cannot wait is of no use; the next one tells why.
      this.#drop(user, warm)
    }
    if (warm.noticed) this.#options.onChange(user)
    warm.noticed = false
  }

  #drop(user: string, warm: Warm): void {
    if (this.#warm.get(user) === warm) this.#warm.delete(user)
    warm.client.close()
  }
}
