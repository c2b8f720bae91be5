import { type Clock, systemClock } from '../../firmware/clock.ts'
import type { Fields, Level, Log } from '../../firmware/log.ts'
import type { Problem, Status } from '../console/status.ts'
import { Connection, ConnectionFailed } from './connection.ts'
import type { NocSettings } from './connection-problem.ts'
import { Outbox } from './outbox.ts'
import { differs, eventMessage, infoMessage, offline, statusMessage } from './telemetry.ts'

/** A day of ordinary events, and about 1 MiB at most. */
const OUTBOX_MAX = 1_000
/** Events on their way at one time: a long line is filled, a slow broker is not flooded. */
const IN_FLIGHT_MAX = 16
const LOOK_MS = 250
/** A status that differs in details is sent this often at most; another state is sent at once. */
const STATUS_LEAST_MS = 1_000
/** A status is sent this often at least, so that its spans of time stay of use. */
const STATUS_MOST_MS = 60_000
/** A connection that lasted this long starts the next wait from its least again. */
const STEADY_MS = 10_000

/** How long to wait between connections: doubling from `leastMs` to `mostMs`. */
export type Backoff = { readonly leastMs: number; readonly mostMs: number }

/** The wait before the next try; between half and all of it, so that many appliances do not return in step. */
export const backoffMs = (failures: number, { leastMs, mostMs }: Backoff, random: number): number =>
  Math.min(mostMs, leastMs * 2 ** Math.min(failures, 30)) * (0.5 + random / 2)

/**
 * Tells the operations centre what the appliance does. Nothing depends on it: whether anybody listens or not, the
 * agent does the same. Events wait for a connection in a bounded outbox; of the status only the newest counts.
 */
export class Uplink {
  readonly #noc: NocSettings
  readonly #log: Log
  readonly #clock: Clock
  readonly #backoff: Backoff
  readonly #outbox = new Outbox(OUTBOX_MAX)
  #status: Status | undefined
  #told: { readonly status: Status; readonly atMs: number } | undefined
  #toldInfo = ''
  #problem: Problem | undefined

  constructor({
    noc,
    log,
    clock = systemClock,
    backoff = { leastMs: 1_000, mostMs: 60_000 },
  }: {
    readonly noc: NocSettings
    readonly log: Log
    readonly clock?: Clock
    readonly backoff?: Backoff
  }) {
    this.#noc = noc
    this.#log = log
    this.#clock = clock
    this.#backoff = backoff
  }

  /** Why there is no connection, for the status; absent while there is one. */
  get problem(): Problem | undefined {
    return this.#problem
  }

  /** The status as of this moment. Costs nothing; call it as often as it changes. */
  state(status: Status): void {
    this.#status = status
  }

  /** Something that happened. In the shape of a `Log`, so that a log can be told here too. */
  event(level: Level, name: string, fields: Fields = {}): void {
    const message = eventMessage(this.#noc.id, this.#clock.date(), level, name, fields)
    this.#outbox.push({ level, message })
  }

  /** Keeps a connection until the signal, then takes leave and resolves. */
  async run(signal: AbortSignal): Promise<void> {
    let failures = 0
    while (!signal.aborted) {
      let openedMs: number | undefined
      try {
        const connection = await Connection.open(this.#noc, offline(this.#noc.id), signal)
        openedMs = this.#clock.now()
        await this.#attend(connection, signal)
      } catch (error: unknown) {
        if (!(error instanceof ConnectionFailed)) throw error
        if (!signal.aborted) this.#failed(error.problem)
      }
      if (openedMs !== undefined && this.#clock.now() - openedMs > STEADY_MS) failures = 0
      const ms = backoffMs(failures, this.#backoff, Math.random())
      failures += 1
      await this.#clock.sleep(ms, signal).catch(() => undefined)
    }
  }

  /** @throws {ConnectionFailed} when the connection is lost. */
  async #attend(connection: Connection, signal: AbortSignal): Promise<void> {
    this.#connected()
    const over = AbortSignal.any([signal, connection.lost])
    try {
      while (!over.aborted) {
        await this.#tell(connection)
        await this.#clock.sleep(LOOK_MS, over).catch(() => undefined)
      }
    } finally {
      if (signal.aborted) await connection.leave(offline(this.#noc.id))
      else connection.drop()
    }
    if (!signal.aborted) throw connection.failure
  }

  async #tell(connection: Connection): Promise<void> {
    const { id } = this.#noc
    if (this.#status !== undefined && this.#isDue(this.#status)) {
      const status = this.#status
      await connection.send(statusMessage(id, this.#clock.date(), status))
      this.#told = { status, atMs: this.#clock.now() }
      const info = infoMessage(id, status)
      if (info.payload !== this.#toldInfo) await connection.send(info)
      this.#toldInfo = info.payload
    }
    for (let sent = 0; this.#outbox.length > 0 && sent < OUTBOX_MAX; sent += IN_FLIGHT_MAX) {
      const batch = this.#outbox.oldest(IN_FLIGHT_MAX)
      await Promise.all(batch.map(({ message }) => connection.send(message)))
      for (const item of batch) this.#outbox.done(item)
    }
  }

  #isDue(status: Status): boolean {
    const told = this.#told
    if (told === undefined || told.status.state !== status.state) return true
    const ageMs = this.#clock.now() - told.atMs
    return ageMs >= STATUS_MOST_MS || (ageMs >= STATUS_LEAST_MS && differs(told.status, status))
  }

  #connected(): void {
    this.#problem = undefined
    this.#told = undefined
    this.#toldInfo = ''
    this.#log('info', 'uplink.connected', { waitingEvents: this.#outbox.length })
    const dropped = this.#outbox.takeDropped()
    if (dropped > 0) this.event('warn', 'telemetry.dropped', { events: dropped })
  }

  /** A problem is logged when it is another one, not at each try. */
  #failed(problem: Problem): void {
    if (problem.what !== this.#problem?.what) this.#log('warn', 'uplink.lost', problem)
    this.#problem = problem
  }
}
