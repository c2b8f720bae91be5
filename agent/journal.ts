import { Low } from 'lowdb'
import { DurableFile } from '../firmware/durable-file.ts'
import type { StateName } from './continuity/machine.ts'

/** One entered state. Dates are for people; order is the order of the list. */
export type Entry = {
  readonly state: StateName
  readonly at: string
  readonly because: string
}

type Content = { entries: readonly Entry[] }

const ENTRIES_MAX = 200

/** Where the appliance was, on the medium: each state is written here before the wire follows it. */
export class Journal {
  readonly #low: Low<Content>

  private constructor(low: Low<Content>) {
    this.#low = low
  }

  /** Opens the journal; a missing or doubly damaged one is an empty one. */
  static async open(path: string): Promise<Journal> {
    const low = new Low<Content>(new DurableFile<Content>(path), { entries: [] })
    await low.read()
    return new Journal(low)
  }

  /** The state that was entered last, if any. */
  get last(): Entry | undefined {
    return this.#low.data.entries.at(-1)
  }

  get entries(): readonly Entry[] {
    return this.#low.data.entries
  }

  /** Answers when the entry is on the medium. @throws NodeJS.ErrnoException when it cannot be (ENOSPC, EIO …) */
  async enter(entry: Entry): Promise<void> {
    this.#low.data = { entries: [...this.#low.data.entries, entry].slice(-ENTRIES_MAX) }
    await this.#low.write()
  }
}
