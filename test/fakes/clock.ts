import type { Clock } from '../../firmware/clock.ts'
import { milliseconds } from '../../firmware/units.ts'

type Sleeper = { readonly dueMs: number; readonly wake: () => void }

/** Time that passes only when the test says so. */
export class FakeClock implements Clock {
  #nowMs = 0
  #sleepers: Sleeper[] = []

  now = () => milliseconds(this.#nowMs)
  date = () => new Date(Date.UTC(2026, 0, 1) + this.#nowMs)

  sleep = (ms: number, signal?: AbortSignal): Promise<void> =>
    new Promise((resolve, reject) => {
      signal?.throwIfAborted()
      const sleeper = { dueMs: this.#nowMs + ms, wake: resolve }
      this.#sleepers.push(sleeper)
      signal?.addEventListener(
        'abort',
        () => {
          this.#sleepers = this.#sleepers.filter((other) => other !== sleeper)
          reject(signal.reason)
        },
        { once: true },
      )
    })

  /** Lets `ms` pass, waking sleepers in the order in which they are due. */
  async pass(ms: number): Promise<void> {
    const untilMs = this.#nowMs + ms
    for (;;) {
      const due = this.#sleepers
        .filter((sleeper) => sleeper.dueMs <= untilMs)
        .sort((a, b) => a.dueMs - b.dueMs)[0]
      if (due === undefined) break
      this.#sleepers = this.#sleepers.filter((sleeper) => sleeper !== due)
      this.#nowMs = due.dueMs
      due.wake()
      await settled()
    }
    this.#nowMs = untilMs
    await settled()
  }
}

/** Lets everything that can go on without time passing go on. */
export const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))
