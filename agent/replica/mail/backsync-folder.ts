import { factsFor, trusted } from './backsync-facts.ts'
import {
  type ApplianceSide,
  type Baseline,
  type Letter,
  MessageRefused,
  type Outgoing,
  PAD,
  type ProductionSide,
} from './backsync-sides.ts'
import { identityOf } from './backsync-text.ts'
import {
  type Flags,
  type FolderView,
  type Identity,
  paired,
  type Step,
  sameFlags,
  steps,
} from './merge.ts'

/** Something changed under our hands in a way that one more reading does not settle. */
export class FolderUnsettled extends Error {
  override readonly name = 'FolderUnsettled'
  readonly path: string

  constructor(path: string) {
    super(`${path}: changes faster than it can be compared`)
    this.path = path
  }
}

/** Production gave another UID than the one that was next when the plan was made. */
class Surprise extends Error {
  override readonly name = 'Surprise'
}

export type FolderCounts = {
  /** Messages given to production under their own UIDs. */
  appended: number
  /** Changes of flags. */
  stored: number
  expunged: number
  /** Letters that production had got as well, and now has once. */
  twins: number
  /** Messages filed anew on the appliance since production had used their UIDs. */
  conflicts: number
  /** Messages that production got by itself, moved to the tail. */
  refiled: number
  /** Padding used, all of it gone again. */
  pads: number
}

export const noCounts = (): FolderCounts => ({
  appended: 0,
  stored: 0,
  expunged: 0,
  twins: 0,
  conflicts: 0,
  refiled: 0,
  pads: 0,
})

export type Refusal = { readonly path: string; readonly uid: number; readonly because: string }

/** How far the appliance's next UID is kept ahead of production's, so that both may give out UIDs meanwhile. */
export const UID_GAP = 64
const ROUNDS_MAX = 24
/** Holes up to this size are filled by pads in the same APPEND; larger ones by doubling copies. */
const INLINE_PADS_MAX = 32
/** Pads that exist at a time: a hole of any size is filled with these. */
const POOL_MAX = 1_024
/** A UID in the baseline with this mark is being filed anew on the appliance, above the UID in it. */
const REFILING = '\\Refiling-'
/**
 * A UID in the baseline with this mark is being given to production, with the content in it. Without the mark a run
 * that was cut off would leave a message that users move or delete meanwhile looking like production's own.
 */
const SENDING = '\\Sending-'
const sendingMark = ({ exact }: Identity): string => `${SENDING}${exact.replace(' ', '-')}`

/**
 * Gives one folder back. Two stages, so that a caller can first deliver everywhere and only then expunge: a message
 * that moved between folders is at production at every instant. Each stage may be cut off anywhere and run again.
 */
export class FolderPush {
  readonly counts = noCounts()
  refusal: Refusal | undefined
  readonly #path: string
  readonly #appliance: ApplianceSide
  readonly #production: ProductionSide
  readonly #baseline: Baseline
  readonly #final: boolean
  readonly #pads: number[] = []
  #uidNext = 0
  #view: FolderView = { uidNext: 0, highestModSeq: 0n, messages: new Map() }
  #rest: Step[] = []
  #rounds = 0

  constructor(folder: {
    path: string
    appliance: ApplianceSide
    production: ProductionSide
    baseline: Baseline
    final: boolean
  }) {
    this.#path = folder.path
    this.#appliance = folder.appliance
    this.#production = folder.production
    this.#baseline = folder.baseline
    this.#final = folder.final
  }

  /** Stage one: production has every message of the appliance. @throws {FolderUnsettled} {Stranger} */
  async deliver(): Promise<void> {
    for (;;) {
      const plan = await this.#plan()
      const [first] = plan
      if (first?.do === 'refile-here') {
        await this.#refileHere(first.uids, first.above)
        continue
      }
      this.#rest = plan.filter((step) => step.do !== 'append')
      try {
        if (first?.do === 'append') {
          const settle = !plan.some((step) => step.do === 'expunge' && step.why === 'twin')
          await this.#append(first.uids, settle)
        }
        return
      } catch (error: unknown) {
        if (!(error instanceof Surprise)) throw error
      }
    }
  }

  /**
   * Stage two: flags, expunges, and in the last pass the tail. Answers the appliance's view on which both agree now.
   * @throws {FolderUnsettled} {Stranger}
   */
  async finish(): Promise<FolderView> {
    while (this.#rest.length > 0) {
      for (const step of this.#rest) await this.#perform(step)
      await this.#removePads()
      // Production may have got something by itself meanwhile; in the last pass that must not stay below UIDNEXT.
      if (!this.#final || this.refusal !== undefined) break
      await this.deliver()
    }
    await this.#removePads()
    this.#rebase()
    if (!this.#final && this.#view.uidNext < this.#uidNext + UID_GAP / 2)
      await this.#appliance.spread(this.#uidNext + UID_GAP)
    return this.#view
  }

  /** Uses up production's UIDs until both sides give out the same one next; does nothing else. */
  async align(from: number, uidNext: number): Promise<void> {
    this.#uidNext = from
    await this.#pad(uidNext)
    await this.#removePads()
  }

  async #plan(): Promise<Step[]> {
    this.#rounds += 1
    if (this.#rounds > ROUNDS_MAX) throw new FolderUnsettled(this.#path)
    await this.#finishRefiling()
    await this.#finishSending()
    const [appliance, production] = await Promise.all([
      this.#appliance.read(),
      this.#readProduction(),
    ])
    const views = { appliance, production }
    const sides = { appliance: this.#appliance, production: this.#production }
    const snapshot = await trusted(sides, this.#path, this.#baseline, views)
    this.#view = appliance
    this.#uidNext = production.uidNext
    const triple = { snapshot, ...views }
    return steps(triple, await factsFor(sides, triple, this.#final), this.#final)
  }

  /** Production without padding: what an interrupted run left is removed first. */
  async #readProduction(): Promise<FolderView> {
    const view = await this.#production.read()
    const snapshot = this.#baseline.messages()
    const candidates = [...view.messages]
      .filter(([uid, flags]) => !snapshot.has(uid) && flags.includes('\\Deleted'))
      .map(([uid]) => uid)
    const pads = candidates.length === 0 ? [] : await this.#production.padding(candidates)
    if (pads.length === 0) return view
    await this.#production.expunge(pads)
    const messages = new Map(view.messages)
    for (const uid of pads) messages.delete(uid)
    this.#pads.length = 0
    return { ...view, messages }
  }

  /**
   * Messages whose UIDs production has used get new ones on the appliance, as if they had been moved. Copy and expunge
   * are two commands; the mark in the baseline tells a later run which of them were under way.
   */
  async #refileHere(uids: readonly number[], above: number): Promise<void> {
    await this.#appliance.spread(above + UID_GAP)
    const mark = [`${REFILING}${above}`]
    this.#baseline.settle(new Map(uids.map((uid) => [uid, mark])))
    await this.#appliance.copy(uids)
    await this.#appliance.expunge(uids)
    this.#baseline.settle(new Map(), new Set(uids))
    this.counts.conflicts += uids.length
  }

  async #finishRefiling(): Promise<void> {
    const marked = [...this.#baseline.messages()].flatMap(([uid, [flag = '']]) =>
      flag.startsWith(REFILING) ? [{ uid, above: Number(flag.slice(REFILING.length)) }] : [],
    )
    if (marked.length === 0) return
    const { messages } = await this.#appliance.read()
    const above = Math.min(...marked.map((mark) => mark.above))
    const originals = marked.map(({ uid }) => uid).filter((uid) => messages.has(uid))
    const copies = [...messages.keys()].filter((uid) => uid >= above)
    const identities = await this.#appliance.identities([...originals, ...copies])
    const done = paired(originals, identities, copies, identities, 'exact')
    if (done.length > 0) await this.#appliance.expunge(done)
    this.#baseline.settle(new Map(), new Set(marked.map(({ uid }) => uid)))
  }

  /** What was under way, and is with us no longer, goes from production too; the rest is planned anew. */
  async #finishSending(): Promise<void> {
    const marked = [...this.#baseline.messages()].filter(([, [flag = '']]) =>
      flag.startsWith(SENDING),
    )
    if (marked.length === 0) return
    const [here, there] = await Promise.all([this.#appliance.read(), this.#production.read()])
    const left = marked.filter(([uid]) => !here.messages.has(uid) && there.messages.has(uid))
    const identities = await this.#production.identities(left.map(([uid]) => uid))
    const ours = left.flatMap(([uid, [flag]]) => {
      const identity = identities.get(uid)
      return identity !== undefined && sendingMark(identity) === flag ? [uid] : []
    })
    if (ours.length > 0) await this.#production.expunge(ours)
    this.#baseline.settle(new Map(), new Set(marked.map(([uid]) => uid)))
  }

  async #append(uids: readonly number[], settle: boolean): Promise<void> {
    try {
      for await (const portion of this.#appliance.letters(uids))
        if (!(await this.#appendPortion(portion, settle))) return
    } catch (error: unknown) {
      if (!(error instanceof MessageRefused)) throw error
      this.#refuse(error.uid ?? 0, error.answer)
    }
  }

  /** Small holes between UIDs are filled within the same APPEND, large ones before it. */
  async #appendPortion(portion: ReadonlyMap<number, Letter>, settle: boolean): Promise<boolean> {
    let batch: Entry[] = []
    for (const [uid, letter] of portion) {
      let next = this.#uidNext + batch.length
      if (uid - next > INLINE_PADS_MAX) {
        if (!(await this.#appendBatch(batch, settle))) return false
        batch = []
        await this.#pad(uid)
        next = this.#uidNext
      }
      if (next > uid) throw new Surprise()
      for (; next < uid; next += 1) batch.push({ outgoing: PAD })
      batch.push({ uid, outgoing: { ...letter, flags: this.#view.messages.get(uid) ?? [] } })
    }
    return await this.#appendBatch(batch, settle)
  }

  /** `false`: production refused a message; nothing behind it may go before it. */
  async #appendBatch(batch: readonly Entry[], settle: boolean): Promise<boolean> {
    if (batch.length === 0) return true
    const own = batch.flatMap(({ uid }) => (uid === undefined ? [] : [uid]))
    if (settle) this.#baseline.settle(new Map(batch.flatMap(sendingOf)))
    let given: readonly number[]
    try {
      given = await this.#production.append(batch.map(({ outgoing }) => outgoing))
    } catch (error: unknown) {
      if (!(error instanceof MessageRefused)) throw error
      if (settle) this.#baseline.settle(new Map(), new Set(own))
      if (batch.length === 1) return this.#refuse(batch[0]?.uid ?? this.#uidNext, error.answer)
      for (const entry of batch) if (!(await this.#appendBatch([entry], settle))) return false
      return true
    }
    if (given.some((uid, n) => uid !== this.#uidNext + n)) {
      await this.#production.expunge(given)
      if (settle) this.#baseline.settle(new Map(), new Set(own))
      throw new Surprise()
    }
    this.#uidNext += batch.length
    this.#pads.push(...given.filter((_, n) => batch[n]?.uid === undefined))
    this.counts.pads += batch.length - own.length
    this.counts.appended += own.length
    if (settle)
      this.#baseline.settle(new Map(own.map((uid) => [uid, this.#view.messages.get(uid) ?? []])))
    return true
  }

  /** What a refused message holds up stays undone: its UID must not be passed, its twin not be removed. */
  #refuse(uid: number, because: string): false {
    this.refusal = { path: this.#path, uid, because }
    this.#rest = this.#rest.filter(
      (step) => step.do === 'store' || (step.do === 'expunge' && step.why === 'deleted'),
    )
    return false
  }

  /** Uses up UIDs until the next one is `uidNext`, by copies of copies of a pad. */
  async #pad(uidNext: number): Promise<void> {
    while (this.#uidNext < uidNext) {
      const missing = uidNext - this.#uidNext
      const pool = this.#pads.slice(-POOL_MAX)
      const given =
        pool.length < Math.min(missing, INLINE_PADS_MAX)
          ? await this.#production.append(Array(Math.min(missing, INLINE_PADS_MAX)).fill(PAD))
          : await this.#production.copy(pool.slice(-Math.min(missing, pool.length)))
      // Somebody else has expunged the pads: the next round begins with new ones.
      if (given.length === 0) this.#pads.length = 0
      this.#pads.push(...given)
      this.counts.pads += given.length
      this.#uidNext = Math.max(this.#uidNext, (given.at(-1) ?? 0) + 1)
      if (this.#pads.length > 2 * POOL_MAX)
        await this.#production.expunge(this.#pads.splice(0, this.#pads.length - POOL_MAX))
    }
  }

  async #perform(step: Step): Promise<void> {
    switch (step.do) {
      case 'store':
        await this.#production.store(step.uids, step.sign, step.flag)
        this.counts.stored += step.uids.length
        return
      case 'expunge':
        await this.#production.expunge(step.uids)
        this.counts[COUNTED[step.why]] += step.uids.length
        return
      case 'raise-uidnext':
        return await this.#pad(step.uidNext)
      case 'copy': {
        const given = await this.#production.copy(step.uids)
        this.#uidNext = Math.max(this.#uidNext, (given.at(-1) ?? 0) + 1)
        return
      }
      case 'raise-modseq':
        return await this.#raiseModSeq(step.modSeq)
      case 'append':
      case 'refile-here':
        throw new Error(`${step.do} belongs to the first stage`)
    }
  }

  async #raiseModSeq(modSeq: bigint): Promise<void> {
    const missing = modSeq - (await this.#production.highestModSeq())
    if (missing <= 0n) return
    const pads = missing > BigInt(INLINE_PADS_MAX) ? INLINE_PADS_MAX : 1
    if (this.#pads.length < pads) await this.#pad(this.#uidNext + pads)
    await this.#production.raiseModSeq(modSeq, this.#pads)
  }

  async #removePads(): Promise<void> {
    if (this.#pads.length > 0) await this.#production.expunge(this.#pads.splice(0))
  }

  /** Both sides agree on what the appliance showed, but for what production refused and what came after that. */
  #rebase(): void {
    const snapshot = this.#baseline.messages()
    const limit = this.refusal?.uid ?? Infinity
    const changed = new Map(
      [...this.#view.messages].filter(
        ([uid, flags]) =>
          (uid < limit || snapshot.has(uid)) && !sameFlags(snapshot.get(uid) ?? UNKNOWN, flags),
      ),
    )
    const gone = new Set([...snapshot.keys()].filter((uid) => !this.#view.messages.has(uid)))
    this.#baseline.settle(changed, gone)
  }
}

/** Like no message's flags. */
const UNKNOWN = ['']

type Entry = { readonly uid?: number; readonly outgoing: Outgoing }

const sendingOf = ({ uid, outgoing: { internalDate, body } }: Entry): [number, Flags][] =>
  uid === undefined ? [] : [[uid, [sendingMark(identityOf(internalDate, body))]]]

const COUNTED = { deleted: 'expunged', twin: 'twins', refiled: 'refiled' } as const
