import { chmod, rm } from 'node:fs/promises'
import { createServer, type Server, type Socket } from 'node:net'
import type { Log } from '../../firmware/log.ts'
import { accountOf } from './accounts.ts'
import { reply, requestFrom } from './dict.ts'
import { eachLine } from './lines.ts'
import type { Entry } from './passwd-file.ts'

/** Whether a user may be served: `unavailable` users exist, but their mailboxes are not complete here. */
export type Admission = 'ready' | 'unavailable' | 'unknown'
export type Admit = (user: string) => Promise<Admission>

/** Dovecot gives up after 30 s: an answer that says why must come before. */
const ADMIT_MS = 20_000
const CONNECTIONS_MAX = 64
const PREFIX = 'shared/passdb/'

export type PasswordOracleOptions = {
  readonly entries: ReadonlyMap<string, Entry>
  /** Production's own domains: `alice@domain` may mean the account `alice`. */
  readonly domains: readonly string[]
  readonly admit: Admit
  /** Path of the unix socket. */
  readonly socket: string
  readonly log: Log
}

/**
 * Tells Dovecot (`passdb dict`) each user's password hash, and says *temporary failure* for users who may not be
 * served at present. Dovecot asks from several worker processes, each with its own connection and one question at
 * a time, so that one slow admission does not keep the others waiting.
 */
export class PasswordOracle {
  readonly #options: PasswordOracleOptions
  readonly #server: Server
  readonly #connections = new Set<Socket>()

  constructor(options: PasswordOracleOptions) {
    this.#options = options
    this.#server = createServer((socket) => this.#serve(socket))
    this.#server.maxConnections = CONNECTIONS_MAX
  }

  /** Answers when questions can be asked. @throws NodeJS.ErrnoException when the socket cannot be made. */
  async listen(): Promise<void> {
    const { socket } = this.#options
    await rm(socket, { force: true })
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject)
      this.#server.listen(socket, () => {
        this.#server.off('error', reject)
        resolve()
      })
    })
    // Dovecot's authentication processes have a user of their own.
    await chmod(socket, 0o666)
  }

  async close(): Promise<void> {
    for (const socket of this.#connections) socket.destroy()
    await new Promise<void>((resolve) => this.#server.close(() => resolve()))
  }

  #serve(socket: Socket): void {
    this.#connections.add(socket)
    socket.on('close', () => this.#connections.delete(socket))
    socket.on('error', (error) =>
      this.#options.log('debug', 'oracle.disconnected', { because: error.message }),
    )
    // Replies go out in the order of the questions.
    let before: Promise<void> = Promise.resolve()
    eachLine(socket, (line) => {
      const answer = this.#answer(line)
      before = before.then(async () => {
        const text = await answer
        if (text !== undefined && socket.writable) socket.write(text)
      })
    })
  }

  async #answer(line: string): Promise<string | undefined> {
    const request = requestFrom(line)
    if (request.name === 'hello') return undefined
    if (request.name === 'unsupported' || !request.key.startsWith(PREFIX))
      return reply.failed('only passdb lookups are answered')
    return await this.#lookup(request.key.slice(PREFIX.length))
  }

  async #lookup(name: string): Promise<string> {
    const { entries, domains, log } = this.#options
    const user = accountOf(name, domains, entries)
    const entry = user === undefined ? undefined : entries.get(user)
    if (user === undefined || entry === undefined) return reply.notFound
    const admission = await this.#admission(user)
    if (admission === 'unknown') return reply.notFound
    if (admission === 'ready') return reply.found(JSON.stringify({ password: entry.hash, user }))
    log('info', 'login.deferred', { user })
    return reply.failed('this mailbox is not available here at present')
  }

  async #admission(user: string): Promise<Admission> {
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<Admission>((resolve) => {
      timer = setTimeout(() => resolve('unavailable'), ADMIT_MS)
    })
    try {
      return await Promise.race([this.#options.admit(user), late])
    } catch (error: unknown) {
      this.#options.log('error', 'admission.failed', { user, error })
      return 'unavailable'
    } finally {
      clearTimeout(timer)
    }
  }
}
