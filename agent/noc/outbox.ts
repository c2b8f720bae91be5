import type { Level } from '../../firmware/log.ts'
import type { Message } from './telemetry.ts'

/** A message that waits, and how much it matters. */
export type Waiting = { readonly level: Level; readonly message: Message }

/**
 * Messages that wait for a connection, oldest first, never more than `limit`. When it is full the oldest of `debug`
 * and `info` gives way, and only if there is none the oldest of all.
 */
export class Outbox {
  readonly #waiting: Waiting[] = []
  readonly #limit: number
  #dropped = 0

  constructor(limit: number) {
    this.#limit = limit
  }

  get length(): number {
    return this.#waiting.length
  }

  /** The oldest ones, to be sent next; they stay until they are `done`. */
  oldest(count: number): readonly Waiting[] {
    return this.#waiting.slice(0, count)
  }

  push(item: Waiting): void {
    if (this.#waiting.length >= this.#limit) {
      const least = this.#waiting.findIndex(({ level }) => level === 'debug' || level === 'info')
      this.#waiting.splice(Math.max(least, 0), 1)
      this.#dropped += 1
    }
    this.#waiting.push(item)
  }

  /** Takes out what has been delivered, wherever it stands by now. */
  done(item: Waiting): void {
    const at = this.#waiting.indexOf(item)
    if (at >= 0) this.#waiting.splice(at, 1)
  }

  /** How many gave way since the last call. */
  takeDropped(): number {
    const dropped = this.#dropped
    this.#dropped = 0
    return dropped
  }
}
