import type { Flags } from './merge.ts'

/** The messages of a folder as they were when HIGHESTMODSEQ was `highestModSeq`. */
export type KnownView = {
  readonly uidValidity: number
  readonly highestModSeq: bigint
  readonly messages: ReadonlyMap<number, Flags>
}

/** Some 50 MB. */
const MESSAGES_MAX = 500_000

/**
 * What folders looked like when they were last read, so that the next reading asks only for what changed since (RFC 7162).
 * Bounded over all accounts; what was not used for longest goes first.
 */
export class KnownViews {
  readonly #views = new Map<string, KnownView>()
  readonly #limit: number
  #messages = 0

  constructor(messagesMax = MESSAGES_MAX) {
    this.#limit = messagesMax
  }

  /** What was known of an account, or of all whose key begins so, may be true no longer. */
  forget(prefix: string): void {
    for (const key of this.#views.keys()) if (key.startsWith(prefix)) this.#forget(key)
  }

  get(key: string): KnownView | undefined {
    const view = this.#views.get(key)
    if (view === undefined) return undefined
    this.#views.delete(key)
    this.#views.set(key, view)
    return view
  }

  set(key: string, view: KnownView): void {
    this.#forget(key)
    if (view.highestModSeq === 0n || view.messages.size > this.#limit) return
    this.#views.set(key, view)
    this.#messages += view.messages.size
    for (const oldest of this.#views.keys()) {
      if (this.#messages <= this.#limit) return
      this.#forget(oldest)
    }
  }

  #forget(key: string): void {
    this.#messages -= this.#views.get(key)?.messages.size ?? 0
    this.#views.delete(key)
  }
}
