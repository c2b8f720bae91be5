import type { Clock } from '../../firmware/clock.ts'
import { type Milliseconds, milliseconds } from '../../firmware/units.ts'

/** A wake-up that comes so late means that this program did not run, and so did not hear either. */
const LATE_MS = 50

/**
 * A clock that stands still while this program does not run: what could not be heard in that time is no silence.
 * Its moments are not those of the machine's clock; `heard` translates.
 */
export class ListeningClock implements Clock {
  readonly #clock: Clock
  #ranMs: number
  #deafMs = 0
  #gap = { fromMs: 0, toMs: 0 }

  constructor(clock: Clock) {
    this.#clock = clock
    this.#ranMs = clock.now()
  }

  now(): Milliseconds {
    return milliseconds(this.#clock.now() - this.#deafMs)
  }

  date(): Date {
    return this.#clock.date()
  }

  /** How long this program has been deaf since it started. */
  get deafMs(): number {
    return this.#deafMs
  }

  /** The moment on this clock at which something happened on the machine's clock. */
  heard(atMs: number): number {
    const { fromMs, toMs } = this.#gap
    if (atMs >= toMs) return atMs - this.#deafMs
    return Math.min(atMs, fromMs) - (this.#deafMs - (toMs - fromMs))
  }

  async sleep(ms: number, signal?: AbortSignal): Promise<void> {
    const due = this.#clock.now() + ms
    await this.#clock.sleep(ms, signal)
    const now = this.#clock.now()
    if (now - due > LATE_MS && now > this.#ranMs) {
      this.#deafMs += now - this.#ranMs
      this.#gap = { fromMs: this.#ranMs, toMs: now }
    }
    this.#ranMs = now
  }
}

/**
 * Sleeps until a moment, or until somebody rings. A ring that finds nobody asleep is lost: a sleeper works out anew
 * what it waits for each time before it goes to sleep. One sleeper at a time.
 */
export class Alarm {
  readonly #clock: Clock
  #sleeping: { readonly dueMs: number; readonly woken: AbortController } | undefined

  constructor(clock: Clock) {
    this.#clock = clock
  }

  ring(): void {
    this.#sleeping?.woken.abort()
  }

  /** Wakes a sleeper that would sleep beyond this moment. */
  ringBefore(dueMs: number): void {
    if (this.#sleeping !== undefined && this.#sleeping.dueMs > dueMs) this.ring()
  }

  async until(dueMs: number): Promise<void> {
    const ms = Math.min(Math.ceil(dueMs - this.#clock.now()), SLEEP_MS_MAX)
    if (ms <= 0) return
    const woken = new AbortController()
    this.#sleeping = { dueMs, woken }
    await asleep(this.#clock, ms, woken.signal)
    this.#sleeping = undefined
  }
}

const SLEEP_MS_MAX = 60_000

/** Whether the time passed without being cut short by the signal. */
export async function asleep(clock: Clock, ms: number, signal: AbortSignal): Promise<boolean> {
  try {
    await clock.sleep(ms, signal)
    return true
  } catch (error: unknown) {
    if (signal.aborted) return false
    throw error
  }
}

/** Acts after a while, unless the signal comes first. */
export async function later(
  clock: Clock,
  ms: number,
  signal: AbortSignal,
  act: () => void,
): Promise<void> {
  if (await asleep(clock, ms, signal)) act()
}
