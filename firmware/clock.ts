import { setTimeout as delay } from 'node:timers/promises'
import { type Milliseconds, milliseconds } from './units.ts'

/** Time as the program may know it; a test gives another one. */
export type Clock = {
  /** Monotonic: never goes back, says nothing about the date. */
  now(): Milliseconds
  /** The date, for people and for RFC 5322 headers only: it may jump. */
  date(): Date
  /** Answers after `ms`, or rejects with the signal's reason. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>
}

/** The machine's own clock. */
export const systemClock: Clock = {
  now: () => milliseconds(performance.now()),
  date: () => new Date(),
  sleep: (ms, signal) => delay(ms, undefined, signal === undefined ? {} : { signal }),
}
