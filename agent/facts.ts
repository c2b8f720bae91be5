import { join } from 'node:path'
import { Low } from 'lowdb'
import type { Ipv4, MacAddress } from '../firmware/addresses.ts'
import { DurableFile } from '../firmware/durable-file.ts'
import type { ServiceName } from './config.ts'
import type { Naming } from './replica/mail/discover.ts'

/** What was learned of production and must be known when it is not there to be asked. */
export type Learned = {
  /** Whom it was learned of: another address may be another machine. */
  readonly of?: Ipv4
  readonly mac?: MacAddress
  readonly naming?: Naming
  /** Services that have answered at least once: silence of theirs means something, after a restart too. */
  readonly answered?: readonly ServiceName[]
}

/** Facts about production, on the medium. */
export class Facts {
  readonly #low: Low<Learned>
  #written: Promise<void> = Promise.resolve()

  private constructor(low: Low<Learned>) {
    this.#low = low
  }

  /** Opens what was learned of the production at this address; of another one nothing is known. */
  static async open(state: string, of: Ipv4 | undefined): Promise<Facts> {
    const low = new Low<Learned>(new DurableFile<Learned>(join(state, 'production')), {})
    await low.read()
    if (low.data.of !== of) low.data = of === undefined ? {} : { of }
    return new Facts(low)
  }

  get learned(): Learned {
    return this.#low.data
  }

  /** Answers when it is on the medium; `false` when it was known already. */
  async learn(facts: Learned): Promise<boolean> {
    const after = { ...this.#low.data, ...facts }
    if (JSON.stringify(after) === JSON.stringify(this.#low.data)) return false
    this.#low.data = after
    const turn = this.#written.then(() => this.#low.write())
    this.#written = turn.catch(() => {})
    await turn
    return true
  }
}
