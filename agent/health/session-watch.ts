import type { Clock } from '../../firmware/clock.ts'
import { type ServiceName, serviceName } from '../config.ts'
import type { Evidence } from './evidence.ts'
import { LoginRefused } from './probes/imap.ts'
import { NotHeard } from './probes/tcp.ts'
import { Alarm, later } from './waiting.ts'

/** A logged-in connection to production. @throws {NotHeard} by `noop`, when it is over. */
export type Session = {
  readonly over: Promise<void>
  readonly ended: boolean
  noop(): Promise<void>
  close(): void
}

/** Connects and logs in. @throws {LoginRefused | NotHeard} */
export type OpenSession = (signal: AbortSignal) => Promise<Session>

const NOOP_EVERY_MS = 1_000
/** A session that has not answered for so long is given up; the next one is opened when production greets again. */
const NOOP_LIMIT_MS = 5_000
const LOGIN_LIMIT_MS = 10_000
const REOPEN_MS = 1_000
/** A refused credential is not tried more often: production may lock accounts. */
const REFUSED_REOPEN_MS = 60_000

type Options = {
  readonly service: Parameters<typeof serviceName>[0]
  readonly clock: Clock
  readonly noticeMs: number
  readonly open: OpenSession
  readonly evidence: (evidence: Evidence) => void
}

/** Keeps one logged-in IMAP session warm: it answers a NOOP each second, and its end is evidence at once. */
export class SessionWatch {
  readonly #options: Options
  readonly #service: ServiceName
  readonly #alarm: Alarm
  #wanted = false
  #notBeforeMs = 0
  #loggedIn = false
  #problem: string | undefined

  constructor(options: Options) {
    this.#options = options
    this.#service = serviceName(options.service)
    this.#alarm = new Alarm(options.clock)
  }

  /** Whether the last logged-in round trip worked and the session still lives. */
  get loggedIn(): boolean {
    return this.#loggedIn
  }

  /** Why the administrator's credential did not work; nothing to do with production being there. */
  get problem(): string | undefined {
    return this.#problem
  }

  /** Production greets: a good moment to log in, if that has not been done. */
  reachable(): void {
    if (this.#loggedIn || this.#wanted) return
    this.#wanted = true
    this.#alarm.ring()
  }

  async run(signal: AbortSignal): Promise<void> {
    const wake = () => this.#alarm.ring()
    signal.addEventListener('abort', wake, { once: true })
    while (!signal.aborted) {
      await this.#alarm.until(this.#wanted ? this.#notBeforeMs : Number.POSITIVE_INFINITY)
      const due = this.#wanted && this.#options.clock.now() >= this.#notBeforeMs
      if (due && !signal.aborted) await this.#live(signal)
    }
    signal.removeEventListener('abort', wake)
  }

  /** One session, from its log-in to its end. */
  async #live(signal: AbortSignal): Promise<void> {
    const { clock } = this.#options
    let session: Session | undefined
    const stop = () => session?.close()
    signal.addEventListener('abort', stop, { once: true })
    try {
      session = await this.#open(signal)
      this.#problem = undefined
      this.#wanted = false
      this.#loggedIn = true
      void session.over.then(() => this.#alarm.ring())
      while (!signal.aborted) {
        await this.#noop(session)
        const nextMs = clock.now() + NOOP_EVERY_MS
        while (!signal.aborted && !session.ended && clock.now() < nextMs)
          await this.#alarm.until(nextMs)
      }
    } catch (error: unknown) {
      if (signal.aborted) return
      this.#over(error)
    } finally {
      signal.removeEventListener('abort', stop)
      this.#loggedIn = false
      session?.close()
    }
  }

  async #open(signal: AbortSignal): Promise<Session> {
    const patience = new AbortController()
    const done = new AbortController()
    const abort = () => patience.abort()
    signal.addEventListener('abort', abort, { once: true })
    void later(this.#options.clock, LOGIN_LIMIT_MS, done.signal, abort)
    try {
      return await this.#options.open(patience.signal)
    } finally {
      done.abort()
      signal.removeEventListener('abort', abort)
    }
  }

  async #noop(session: Session): Promise<void> {
    const { clock, noticeMs, evidence } = this.#options
    const service = this.#service
    const sinceMs = clock.now()
    const done = new AbortController()
    const silent = () =>
      evidence({ kind: 'silent', service, by: 'session', sinceMs, atMs: clock.now() })
    void later(clock, noticeMs, done.signal, silent)
    void later(clock, NOOP_LIMIT_MS, done.signal, () => session.close())
    try {
      await session.noop()
      evidence({ kind: 'alive', service, by: 'session', atMs: clock.now() })
    } finally {
      done.abort()
    }
  }

  #over(error: unknown): void {
    const { clock, evidence } = this.#options
    const refused = error instanceof LoginRefused
    if (!refused && !(error instanceof NotHeard)) throw error
    this.#notBeforeMs = clock.now() + (refused ? REFUSED_REOPEN_MS : REOPEN_MS)
    if (refused) this.#problem = error.message
    else if (this.#loggedIn && error.because !== 'silent')
      evidence({ kind: 'lost', service: this.#service, atMs: clock.now() })
    // A session that could not be opened waits for the next greeting; a refused one for its time.
    this.#wanted = refused
  }
}
