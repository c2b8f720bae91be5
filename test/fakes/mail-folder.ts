import type {
  ApplianceSide,
  Baseline,
  Letter,
  Outgoing,
  ProductionSide,
} from '../../agent/replica/mail/backsync-sides.ts'
import { MessageRefused, PAD_HEADER } from '../../agent/replica/mail/backsync-sides.ts'
import type { Flags, FolderView, Identities, Messages } from '../../agent/replica/mail/merge.ts'

/** Both servers and the ledger vanish from the agent's sight: it was killed. */
export class Killed extends Error {
  override readonly name = 'Killed'
}

/** How many more writes the agent lives to see. The last one is done, but its answer is lost. */
export class Fuse {
  left: number

  constructor(left = Number.POSITIVE_INFINITY) {
    this.left = left
  }

  burn(): void {
    this.left -= 1
    if (this.left <= 0) throw new Killed()
  }
}

type Stored = { readonly letter: Letter; flags: Flags }

/** One folder of an IMAP server with UIDPLUS and CONDSTORE, in memory; both roles. */
export class FakeFolder implements ApplianceSide, ProductionSide {
  readonly messages = new Map<number, Stored>()
  /** Everything that was ever under a UID. */
  readonly history = new Map<number, Set<string>>()
  uidNext = 1
  modSeq = 1n
  writes = 0
  fuse = new Fuse()
  /** Messages that are not taken. */
  refuses: (letter: Letter) => boolean = () => false
  /** Something that happens by itself before a write. */
  meanwhile: (() => void) | undefined

  deliver(letter: Letter, flags: Flags = []): number {
    const uid = this.uidNext
    this.uidNext += 1
    this.modSeq += 1n
    this.messages.set(uid, { letter, flags: [...flags].sort() })
    const seen = this.history.get(uid) ?? new Set()
    this.history.set(uid, seen.add(letter.body.toString()))
    return uid
  }

  remove(uid: number): void {
    if (this.messages.delete(uid)) this.modSeq += 1n
  }

  setFlag(uid: number, flag: string, on: boolean): void {
    const message = this.messages.get(uid)
    if (message === undefined || message.flags.includes(flag) === on) return
    this.modSeq += 1n
    message.flags = on
      ? [...message.flags, flag].sort()
      : message.flags.filter((other) => other !== flag)
  }

  read(): Promise<FolderView> {
    const messages = new Map([...this.messages].map(([uid, { flags }]) => [uid, flags]))
    return Promise.resolve({ uidNext: this.uidNext, highestModSeq: this.modSeq, messages })
  }

  identities(uids: readonly number[]): Promise<Identities> {
    return Promise.resolve(
      this.#map(uids, ({ letter }) => {
        const text = letter.body.toString()
        const exact = `${letter.internalDate}\n${text}`
        const id = idOf(letter)
        const body = text.slice(text.indexOf('\n\n'))
        return { exact, letter: id === '' ? exact : `${id}\n${body}` }
      }),
    )
  }

  messageIds(uids: readonly number[]): Promise<ReadonlyMap<number, string>> {
    return Promise.resolve(this.#map(uids, ({ letter }) => idOf(letter)))
  }

  stamps(uids: readonly number[]): Promise<ReadonlyMap<number, string>> {
    return Promise.resolve(
      this.#map(uids, ({ letter }) => `${letter.internalDate} ${letter.body.length}`),
    )
  }

  async *letters(uids: readonly number[]): AsyncIterable<ReadonlyMap<number, Letter>> {
    for (let n = 0; n < uids.length; n += 3) {
      await Promise.resolve()
      yield this.#map(uids.slice(n, n + 3), ({ letter }) => letter)
    }
  }

  padding(candidates: readonly number[]): Promise<readonly number[]> {
    return Promise.resolve(
      candidates.filter((uid) => this.messages.get(uid)?.letter.body.includes(PAD_HEADER)),
    )
  }

  highestModSeq(): Promise<bigint> {
    return Promise.resolve(this.modSeq)
  }

  append(letters: readonly Outgoing[]): Promise<readonly number[]> {
    if (letters.some(this.refuses)) return Promise.reject(new MessageRefused('NO [OVERQUOTA]'))
    return this.#write(() => letters.map((outgoing) => this.deliver(outgoing, outgoing.flags)))
  }

  copy(uids: readonly number[]): Promise<readonly number[]> {
    return this.#write(() =>
      uids.flatMap((uid) => {
        const message = this.messages.get(uid)
        return message === undefined ? [] : [this.deliver(message.letter, message.flags)]
      }),
    )
  }

  async expunge(uids: readonly number[]): Promise<void> {
    await this.#write(() => {
      for (const uid of uids) this.setFlag(uid, '\\Deleted', true)
    })
    await this.#write(() => {
      for (const uid of uids) this.remove(uid)
    })
  }

  store(uids: readonly number[], sign: '+' | '-', flag: string): Promise<void> {
    return this.#write(() => {
      for (const uid of uids) this.setFlag(uid, flag, sign === '+')
    })
  }

  raiseModSeq(modSeq: bigint): Promise<void> {
    return this.#write(() => {
      if (this.modSeq < modSeq) this.modSeq = modSeq
    })
  }

  spread(uidNext: number): Promise<void> {
    return this.#write(() => {
      this.uidNext = Math.max(this.uidNext, uidNext)
    })
  }

  #write<T>(change: () => T): Promise<T> {
    try {
      this.meanwhile?.()
      this.writes += 1
      const result = change()
      this.fuse.burn()
      return Promise.resolve(result)
    } catch (error: unknown) {
      return Promise.reject(error)
    }
  }

  #map<T>(uids: readonly number[], of: (message: Stored) => T): Map<number, T> {
    const found = new Map<number, T>()
    for (const uid of uids) {
      const message = this.messages.get(uid)
      if (message !== undefined) found.set(uid, of(message))
    }
    return found
  }
}

const idOf = (letter: Letter): string =>
  /^Message-ID: (.*)$/m.exec(letter.body.toString())?.[1] ?? ''

/** A ledger's folder, in memory. */
export class FakeBaseline implements Baseline {
  known = new Map<number, Flags>()
  heardOf = { uidNext: 1, highestModSeq: 1n }
  fuse = new Fuse()

  messages(): Messages {
    return new Map(this.known)
  }

  production() {
    return this.heardOf
  }

  settle(changed: Messages, gone: ReadonlySet<number> = new Set()): void {
    for (const [uid, flags] of changed) this.known.set(uid, flags)
    for (const uid of gone) this.known.delete(uid)
    this.fuse.burn()
  }
}
