/**
 * A bounded queue between observers, who push at their pace, and one loop, which takes at its own.
 * When it is full the newest item is refused and counted: an observer repeats what still matters.
 */
export class BoundedQueue<T extends NonNullable<unknown>> {
  readonly #items: T[] = []
  readonly #limit: number
  #waiting: ((item: T) => void) | undefined
  #refused = 0

  constructor(limit: number) {
    this.#limit = limit
  }

  get length(): number {
    return this.#items.length
  }

  /** How many items were refused because the queue was full. */
  get refused(): number {
    return this.#refused
  }

  /** `false` when the queue was full and the item was refused. */
  push(item: T): boolean {
    if (this.#waiting !== undefined) {
      const deliver = this.#waiting
      this.#waiting = undefined
      deliver(item)
      return true
    }
    if (this.#items.length >= this.#limit) {
      this.#refused += 1
      return false
    }
    this.#items.push(item)
    return true
  }

  /** The oldest item, as soon as there is one. One taker at a time. Rejects with the signal's reason. */
  take(signal: AbortSignal): Promise<T> {
    if (signal.aborted) return Promise.reject(signal.reason)
    const first = this.#items.shift()
    if (first !== undefined) return Promise.resolve(first)
    return new Promise((resolve, reject) => {
      const abort = () => {
        this.#waiting = undefined
        reject(signal.reason)
      }
      signal.addEventListener('abort', abort, { once: true })
      this.#waiting = (item) => {
        signal.removeEventListener('abort', abort)
        resolve(item)
      }
    })
  }
}
