/** The gate stayed shut for longer than was worth waiting, or for good. */
export class GateShut extends Error {
  override readonly name = 'GateShut'
}

/**
 * A barrier: work passes while it is open; `shut` answers when nobody is inside any more and lets nobody in.
 * It begins shut.
 */
export class Gate {
  #open = false
  #inside = 0
  readonly #waiting = new Set<(entered: boolean) => void>()
  #emptied: (() => void)[] = []

  get isOpen(): boolean {
    return this.#open
  }

  /** Runs `work` inside, at once or as soon as the gate opens. @throws {GateShut} when that is not within `patienceMs` */
  async pass<T>(work: () => Promise<T>, patienceMs: number): Promise<T> {
    if (this.#open) this.#inside += 1
    else if (!(await this.#admitted(patienceMs))) throw new GateShut('not at present')
    try {
      return await work()
    } finally {
      this.#inside -= 1
      if (this.#inside === 0) {
        for (const emptied of this.#emptied) emptied()
        this.#emptied = []
      }
    }
  }

  open(): void {
    this.#open = true
    for (const enter of this.#waiting) enter(true)
  }

  async shut(): Promise<void> {
    this.#open = false
    if (this.#inside > 0) await new Promise<void>((resolve) => this.#emptied.push(resolve))
  }

  /** Sends everybody home who waits: nothing will open any more. */
  abandon(): void {
    for (const enter of this.#waiting) enter(false)
  }

  #admitted(patienceMs: number): Promise<boolean> {
    return new Promise((resolve) => {
      const settle = (entered: boolean) => {
        // Counted in this instant, not in the one in which the waiting function continues.
        if (entered) this.#inside += 1
        clearTimeout(timer)
        this.#waiting.delete(settle)
        resolve(entered)
      }
      const timer = setTimeout(() => settle(false), patienceMs)
      this.#waiting.add(settle)
    })
  }
}
