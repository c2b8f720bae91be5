import type { Log } from '../../../firmware/log.ts'
import type { Settings } from '../../config.ts'
import type { ImapAccount } from './backsync-account.ts'
import { LedgerBaseline } from './backsync-baseline.ts'
import { type Compared, type Difference, differencesOf, inWords } from './backsync-compare.ts'
import { type Both, Connections, type Open } from './backsync-connections.ts'
import { FolderPush } from './backsync-folder.ts'
import { ImapFolder } from './backsync-mailbox.ts'
import { AccountPush, ApplianceFolder, type PushResult } from './backsync-push.ts'
import { CommandRefused } from './backsync-session.ts'
import type { Doveadm } from './doveadm.ts'
import { PeerUnreachable } from './imap.ts'
import type { Ledger } from './ledger.ts'
import { unboundOf } from './merge.ts'
import type { FolderStatus } from './plan.ts'
import { settle, settleSubscriptions } from './settle.ts'
import { makeGap } from './takeover.ts'

/** The appliance holds something that production does not: nothing may overwrite it. */
export class NotGivenBack extends Error {
  override readonly name = 'NotGivenBack'
  readonly user: string
  readonly differences: readonly Difference[]

  constructor(user: string, differences: readonly Difference[]) {
    super(`${user}: ${differences.length} items are on the appliance only`)
    this.user = user
    this.differences = differences
  }
}

/** A pull that drops a folder needs another one to fetch it again (doveadm-sync(1)). */
const PULLS_MAX = 5
/** Response codes (RFC 5530) that mean: later. */
const LATER = /^NO \[(UNAVAILABLE|INUSE|LIMIT|SERVERBUG)\]/i

/**
 * Gives back to production what users did on the appliance, and brings the appliance to production's state again.
 * The ledger is the only journal: it says what both sides agreed on last, and the UIDs say the rest.
 */
export class BackSync {
  readonly #concurrency: number
  readonly #ledger: Ledger
  readonly #doveadm: Doveadm
  readonly #log: Log
  readonly #connections: Connections
  readonly #gaps = new Map<string, Promise<void>>()
  readonly #turns = new Map<string, Promise<unknown>>()
  readonly #compared = new Map<string, Compared>()
  readonly #unbound = new Map<string, { readonly at: string; readonly count: number }>()

  constructor(parts: {
    settings: Settings
    ledger: Ledger
    doveadm: Doveadm
    log: Log
    openProduction: Open
    openReplica: Open
  }) {
    this.#concurrency = parts.settings.replication.concurrency
    this.#ledger = parts.ledger
    this.#doveadm = parts.doveadm
    this.#log = parts.log
    this.#connections = new Connections(parts)
  }

  async close(): Promise<void> {
    await this.#connections.close()
  }

  /** Prepares an account for its first answer while standing in; see `makeGap` of the takeover. Calls at once share a run. */
  async makeGap(user: string): Promise<void> {
    if (this.#ledger.account(user).gap !== 'made' && !this.#gaps.has(user)) this.#forget(user)
    const running =
      this.#gaps.get(user) ??
      makeGap({ doveadm: this.#doveadm, ledger: this.#ledger }, user).finally(() =>
        this.#gaps.delete(user),
      )
    this.#gaps.set(user, running)
    await running
  }

  /**
   * Gives an account back; may be cut off at any instant and called again. `final`: nobody writes to the appliance
   * meanwhile, and what comes next is a hand-over. `acceptStranger`: a person has decided that this production is to be
   * filled, whatever it is.
   * @throws {PeerUnreachable} {Stranger} {ReplicaDiverged} {ProductionUnsuitable} {FolderUnsettled} {CommandRefused}
   */
  push(
    user: string,
    options: { readonly final?: boolean; readonly acceptStranger?: boolean } = {},
  ): Promise<PushResult> {
    return this.#use(user, async (both) => {
      const startedMs = performance.now()
      const result = await new AccountPush({
        user,
        both,
        ledger: this.#ledger,
        doveadm: this.#doveadm,
        final: options.final ?? false,
        acceptStranger: options.acceptStranger ?? false,
      }).run()
      const tookMs = Math.round(performance.now() - startedMs)
      const { refused, ...counts } = result
      if (result.items > 0) this.#log('info', 'account.given-back', { user, ...counts, tookMs })
      for (const refusal of refused) this.#log('error', 'message.refused', { user, ...refusal })
      return result
    })
  }

  /** Every difference between production and appliance, and to whom it is owed. */
  differences(user: string): Promise<Difference[]> {
    return this.#use(user, (both) => differencesOf(both, this.#ledger, user, this.#compared))
  }

  /** What the appliance holds and production does not, in words: what production has by itself does not count. */
  async verify(user: string): Promise<readonly string[]> {
    const all = await this.differences(user)
    return all.filter(({ owner }) => owner === 'appliance').map(inWords)
  }

  /**
   * Brings the appliance to production's state, and the ledger with it: what production got by itself comes over. To be
   * called when nobody can write to the appliance any more. An account that cannot be pulled is no longer complete, and
   * is left to replication. @throws {NotGivenBack} {PeerUnreachable}
   */
  async pull(user: string): Promise<void> {
    const owed = (await this.differences(user)).filter(({ owner }) => owner === 'appliance')
    if (owed.length > 0) throw new NotGivenBack(user, owed)
    const production = await this.#use(user, (both) => this.#aligned(user, both))
    // From here on production is the truth: whoever is cut off now must neither give anything back from folders that a
    // pull was making anew, nor show them.
    this.#ledger.record(user, { gap: 'none', complete: false })
    let quiet = 0
    for (let pull = 0; pull < PULLS_MAX && quiet < 2; pull += 1) {
      const { exitCode } = await this.#doveadm.backup(user)
      quiet = exitCode === 0 ? quiet + 1 : 0
    }
    if (quiet < 2) throw new PeerUnreachable('production', `account ${user} cannot be pulled`)
    const stores = { doveadm: this.#doveadm, ledger: this.#ledger }
    await settle(stores, user, production)
    await settleSubscriptions(stores, user)
    this.#ledger.record(user, { complete: true })
  }

  /** A pull cannot put a message where the replica's UIDNEXT has passed: it would drop the folder and copy it anew. */
  async #aligned(user: string, both: Both): Promise<FolderStatus[]> {
    const there = byPath(await both.production.folders())
    for (const { path, uidNext, uidValidity } of await both.appliance.folders()) {
      const production = there.get(path)
      if (production === undefined || production.uidNext >= uidNext) continue
      await new FolderPush({
        path,
        appliance: new ApplianceFolder(both, this.#doveadm, user, path),
        production: new ImapFolder(both.production, path),
        baseline: new LedgerBaseline(this.#ledger, user, { path, uidValidity }),
        final: false,
      }).align(production.uidNext, uidNext)
    }
    return await both.production.folders()
  }

  /** Accounts where something moved, on either side, since the last push. @throws {PeerUnreachable} */
  async dirty(users: readonly string[]): Promise<string[]> {
    const left = [...users]
    const moved: string[] = []
    const worker = async () => {
      for (let user = left.shift(); user !== undefined; user = left.shift())
        if (await this.#isDirty(user)) moved.push(user)
    }
    await Promise.all(Array.from({ length: this.#concurrency }, worker))
    return moved.sort()
  }

  /** How many items of an account are on the appliance only: arrivals, changed flags, expunges. */
  unbound(user: string): Promise<number> {
    return this.#connections.useAppliance(user, async (appliance) => {
      const known = new Map(this.#ledger.folders(user).map((folder) => [folder.path, folder]))
      let count = 0
      for (const folder of await appliance.folders()) {
        const then = known.get(folder.path)
        known.delete(folder.path)
        if (then?.uidNext === folder.uidNext && then.highestModSeq === folder.highestModSeq)
          continue
        count += await this.#unboundIn(user, appliance, folder)
      }
      for (const { path } of known.values()) count += this.#ledger.messageCount(user, path)
      return count
    })
  }

  async #unboundIn(
    user: string,
    appliance: ImapAccount,
    { path, uidValidity, uidNext, highestModSeq }: FolderStatus,
  ): Promise<number> {
    const key = `${user}\n${path}`
    const then = this.#ledger.folders(user).find((folder) => folder.path === path)
    const at = `${uidNext} ${highestModSeq} ${then?.uidNext} ${then?.highestModSeq}`
    const before = this.#unbound.get(key)
    if (before?.at === at) return before.count
    const baseline = new LedgerBaseline(this.#ledger, user, { path, uidValidity })
    const { messages } = await new ImapFolder(appliance, path).read()
    const count = unboundOf(baseline.messages(), messages)
    this.#unbound.set(key, { at, count })
    return count
  }

  #isDirty(user: string): Promise<boolean> {
    return this.#use(user, async ({ appliance, production }) => {
      const [here, there, subscriptions] = await Promise.all([
        appliance.folders(),
        production.folders(),
        appliance.subscriptions(),
      ])
      const known = this.#ledger.folders(user)
      const [near, far] = [byPath(here), byPath(there)]
      const isAsBefore = known.every((folder) => {
        const [a, p] = [near.get(folder.path), far.get(folder.path)]
        return (
          a?.uidNext === folder.uidNext &&
          a.highestModSeq === folder.highestModSeq &&
          p?.uidNext === folder.productionUidNext &&
          p.highestModSeq === folder.productionModSeq
        )
      })
      const isSubscribedAsBefore =
        subscriptions.join('\n') === this.#ledger.subscriptions(user).join('\n')
      return !(isAsBefore && isSubscribedAsBefore && here.length === known.length)
    })
  }

  /** What was learned when the appliance last stood in is not true any more. */
  #forget(user: string): void {
    this.#connections.forget(user)
    for (const remembered of [this.#compared, this.#unbound])
      for (const key of remembered.keys()) if (key.startsWith(`${user}\n`)) remembered.delete(key)
  }

  /** One use of an account at a time. */
  #use<T>(user: string, work: (both: Both) => Promise<T>): Promise<T> {
    const before = this.#turns.get(user) ?? Promise.resolve()
    const turn = before
      .catch(() => {})
      .then(() => this.#connections.use(user, work))
      .catch((error: unknown) => {
        if (error instanceof CommandRefused && LATER.test(error.answer))
          throw new PeerUnreachable(error.peer, error.answer, error)
        throw error
      })
    this.#turns.set(user, turn)
    return turn.finally(() => {
      if (this.#turns.get(user) === turn) this.#turns.delete(user)
    })
  }
}

const byPath = (folders: readonly FolderStatus[]): ReadonlyMap<string, FolderStatus> =>
  new Map(folders.map((folder) => [folder.path, folder]))
