/** Where people wait while it is closed, so that for a moment nothing of theirs is under way. */
export class Gate {
  readonly #people: number
  readonly #everybodyWaits: () => void
  #closed: PromiseWithResolvers<void> | undefined
  #waiting = 0

  constructor(people: number, everybodyWaits: () => void) {
    this.#people = people
    this.#everybodyWaits = everybodyWaits
  }

  close(): void {
    this.#closed ??= Promise.withResolvers()
  }

  open(): void {
    this.#closed?.resolve()
    this.#closed = undefined
    this.#waiting = 0
  }

  /** At once when it is open. */
  async pass(): Promise<void> {
    if (this.#closed === undefined) return
    this.#waiting += 1
    if (this.#waiting === this.#people) this.#everybodyWaits()
    await this.#closed.promise
  }
}
