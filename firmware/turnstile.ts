/** Something that many wait for and that happens once. */
export type Turnstile = {
  readonly isOpen: boolean
  open(): void
  /** Answers once it is open, at once if it is open already; rejects with the signal's reason. */
  passed(signal?: AbortSignal): Promise<void>
}

/** A turnstile that is shut. */
export function turnstile(): Turnstile {
  const { promise, resolve } = Promise.withResolvers<void>()
  let isOpen = false
  return {
    get isOpen() {
      return isOpen
    },
    open: () => {
      isOpen = true
      resolve()
    },
    passed: (signal) => {
      if (signal?.aborted) return Promise.reject(signal.reason)
      return new Promise((pass, reject) => {
        signal?.addEventListener('abort', () => reject(signal.reason), { once: true })
        promise.then(pass)
      })
    },
  }
}
