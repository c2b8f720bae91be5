import { LedgerBaseline } from './backsync-baseline.ts'
import type { Both } from './backsync-connections.ts'
import {
  type FolderCounts,
  FolderPush,
  noCounts,
  type Refusal,
  UID_GAP,
} from './backsync-folder.ts'
import { type FolderPlan, type FolderStep, folderPlan, type Pair } from './backsync-folders.ts'
import { ImapFolder } from './backsync-mailbox.ts'
import { CommandRefused } from './backsync-session.ts'
import { type ApplianceSide, STRANGER_MESSAGES_MIN, Stranger } from './backsync-sides.ts'
import type { Doveadm } from './doveadm.ts'
import type { FolderState, Ledger } from './ledger.ts'
import type { FolderStatus } from './plan.ts'

/** What a push did. `items`: everything that production did not have before. */
export type PushResult = Readonly<FolderCounts> & {
  readonly items: number
  /** Folders made, renamed, deleted at production, and subscriptions changed there. */
  readonly folders: number
  /** Messages that production does not take: they and what came after them stay with the appliance. */
  readonly refused: readonly Refusal[]
}

/** The replica is not the one that the ledger describes: giving back from it would delete what nobody deleted. */
export class ReplicaDiverged extends Error {
  override readonly name = 'ReplicaDiverged'
  readonly because: string

  constructor(because: string) {
    super(`the replica is not the one in the ledger: ${because}`)
    this.because = because
  }
}

/** Rounds of changes to the folders: each brings at least one step. */
const FOLDER_ROUNDS_MAX = 10_000

type Job = { readonly pair: Pair; readonly push: FolderPush; readonly baseline: LedgerBaseline }

/** One push of one account. */
export class AccountPush {
  readonly #user: string
  readonly #both: Both
  readonly #ledger: Ledger
  readonly #doveadm: Doveadm
  readonly #final: boolean
  readonly #acceptStranger: boolean
  #folders = 0
  #appliance: ReadonlyMap<string, FolderStatus> = new Map()
  #production: ReadonlyMap<string, FolderStatus> = new Map()

  constructor(parts: {
    user: string
    both: Both
    ledger: Ledger
    doveadm: Doveadm
    final: boolean
    acceptStranger: boolean
  }) {
    this.#user = parts.user
    this.#both = parts.both
    this.#ledger = parts.ledger
    this.#doveadm = parts.doveadm
    this.#final = parts.final
    this.#acceptStranger = parts.acceptStranger
  }

  async run(): Promise<PushResult> {
    const plan = await this.#shaped()
    const jobs = plan.pairs.filter((pair) => this.#needsWork(pair)).map((pair) => this.#job(pair))
    for (const { push } of jobs) await push.deliver()
    for (const job of jobs) await this.#finish(job)
    for (const remove of plan.removes) await this.#remove(remove)
    await this.#subscribe()
    return this.#result(jobs.map(({ push }) => push))
  }

  /** The folders themselves are brought into agreement first. */
  async #shaped(): Promise<FolderPlan> {
    let plan = await this.#list()
    if (this.#refuseStrangers(plan)) plan = await this.#list()
    for (let round = 0; round < FOLDER_ROUNDS_MAX; round += 1) {
      const [first] = plan.steps
      if (first === undefined && !(await this.#revive(plan))) return plan
      // A rename takes children with it, so that the next step may be another one afterwards.
      const group =
        first?.do === 'rename' ? [first] : plan.steps.filter((step) => step.do === first?.do)
      for (const step of group) await this.#shape(step)
      plan = await this.#list()
    }
    throw new ReplicaDiverged('its folders do not come into agreement with those of production')
  }

  async #list(): Promise<FolderPlan> {
    const [appliance, production] = await Promise.all([
      this.#both.appliance.folders(),
      this.#both.production.folders(),
    ])
    this.#appliance = new Map(appliance.map((folder) => [folder.path, folder]))
    this.#production = new Map(production.map((folder) => [folder.path, folder]))
    return folderPlan(this.#ledger.folders(this.#user), appliance, production)
  }

  /** `true`: a person accepted a stranger, nothing is known of it. */
  #refuseStrangers(plan: FolderPlan): boolean {
    if (!this.#appliance.has('INBOX')) throw new ReplicaDiverged('it has no INBOX')
    if (plan.steps.some((step) => step.do === 'remove' && step.path === 'INBOX'))
      throw new ReplicaDiverged('INBOX has another UIDVALIDITY')
    for (const { path, uidNext, uidValidity } of this.#ledger.folders(this.#user)) {
      const here = this.#appliance.get(path)
      if (here !== undefined && here.uidValidity === uidValidity && here.uidNext < uidNext)
        throw new ReplicaDiverged(`${path} was made anew`)
    }
    const problem = this.#strangeness(plan)
    if (problem === undefined) return false
    if (!this.#acceptStranger) throw new Stranger(problem)
    for (const { path } of this.#ledger.folders(this.#user))
      this.#ledger.forgetFolder(this.#user, path)
    return true
  }

  #strangeness(plan: FolderPlan): string | undefined {
    const [other] = plan.strangers
    if (other !== undefined) return `${other} has another UIDVALIDITY`
    let known = 0
    let present = 0
    for (const { path } of this.#ledger.folders(this.#user)) {
      const count = this.#ledger.messageCount(this.#user, path)
      const pair = plan.pairs.find(({ snapshot }) => snapshot === path)
      const there = this.#production.get(pair?.production ?? path)
      const isLost = pair === undefined && !plan.deletedThere.includes(path)
      if (isLost) continue
      known += count
      present += Math.min(count, there?.messages ?? 0)
    }
    return known >= STRANGER_MESSAGES_MIN && present * 2 < known
      ? `of ${known} messages it has no more than ${present}`
      : undefined
  }

  /** A folder that production deleted comes back as a whole if something came into it since. */
  async #revive({ deletedThere }: FolderPlan): Promise<boolean> {
    let revived = false
    for (const path of deletedThere) {
      const known = this.#ledger.folder(this.#user, path)?.messages
      const { messages } = await new ImapFolder(this.#both.appliance, path).read()
      if ([...messages.keys()].every((uid) => known?.has(uid))) continue
      this.#ledger.forgetFolder(this.#user, path)
      revived = true
    }
    return revived
  }

  async #shape(step: FolderStep): Promise<void> {
    const user = this.#user
    switch (step.do) {
      case 'rename':
        await this.#both.production.rename(step.from, step.to)
        this.#ledger.renameFolder(user, step.from, step.to)
        this.#folders += 1
        return
      case 'follow':
        return this.#ledger.renameFolder(user, step.from, step.to)
      case 'forget':
        return this.#ledger.forgetFolder(user, step.path)
      case 'create':
        await this.#both.production.create(step.path, this.#appliance.get(step.path)?.specialUse)
        this.#folders += 1
        return
      case 'adopt':
        await this.#both.appliance.unselect()
        await this.#doveadm.call('mailboxUpdate', {
          user,
          mailbox: step.path,
          uidValidity: String(step.uidValidity),
        })
        return
      case 'remove':
        return await this.#remove(step)
    }
  }

  /** Deletes a folder at production, unless production has put something of its own into it. */
  async #remove({ path, production }: { path: string; production: string }): Promise<void> {
    const folder = new ImapFolder(this.#both.production, production)
    const known = this.#ledger.folder(this.#user, path)
    const { messages, uidNext, highestModSeq } = await folder.read()
    const isSetBack =
      known === undefined ||
      uidNext < known.productionUidNext ||
      highestModSeq < known.productionModSeq
    const common = [...messages.keys()].filter((uid) => !isSetBack && known.messages.has(uid))
    const isDeleted = common.length === messages.size && (await this.#delete(production))
    if (!isDeleted) await folder.expunge(common)
    this.#ledger.forgetFolder(this.#user, path)
    this.#folders += 1
  }

  /** Some folders cannot be deleted: those that are special, or have children. */
  async #delete(path: string): Promise<boolean> {
    try {
      await this.#both.production.delete(path)
      return true
    } catch (error: unknown) {
      if (!(error instanceof CommandRefused)) throw error
      return false
    }
  }

  #needsWork({ path, production, snapshot }: Pair): boolean {
    const state = snapshot === undefined ? undefined : this.#state(snapshot)
    const [here, there] = [this.#appliance.get(path), this.#production.get(production)]
    if (state === undefined || here === undefined || there === undefined) return true
    const isMoved = here.uidNext !== state.uidNext || here.highestModSeq !== state.highestModSeq
    const isMovedThere =
      there.uidNext !== state.productionUidNext || there.highestModSeq !== state.productionModSeq
    const isBehind = there.highestModSeq > 0n && there.highestModSeq < here.highestModSeq
    if (isMoved || isBehind || state.uidValidity !== there.uidValidity) return true
    return this.#final
      ? isMovedThere || there.uidNext < here.uidNext
      : here.uidNext < there.uidNext + UID_GAP / 2
  }

  #state(path: string): FolderState | undefined {
    return this.#ledger.folders(this.#user).find((folder) => folder.path === path)
  }

  #job(pair: Pair): Job {
    const { path, production, snapshot } = pair
    const uidValidity = this.#production.get(production)?.uidValidity ?? 0
    const folder = { path, uidValidity }
    const baseline = new LedgerBaseline(this.#ledger, this.#user, folder, snapshot)
    const push = new FolderPush({
      path,
      baseline,
      appliance: new ApplianceFolder(this.#both, this.#doveadm, this.#user, path),
      production: new ImapFolder(this.#both.production, production),
      final: this.#final,
    })
    return { pair, push, baseline }
  }

  async #finish({ pair, push, baseline }: Job): Promise<void> {
    const { highestModSeq } = await push.finish()
    const [appliance, production] = await Promise.all([
      this.#both.appliance.status(pair.path),
      this.#both.production.status(pair.production),
    ])
    baseline.position(appliance, push.refusal === undefined ? highestModSeq : 0n, production)
  }

  /** Subscriptions are a set of names: only what users changed is changed. */
  async #subscribe(): Promise<void> {
    const before = new Set(this.#ledger.subscriptions(this.#user))
    const here = await this.#both.appliance.subscriptions()
    const isHere = new Set(here)
    const added = here.filter((path) => !before.has(path))
    const removed = [...before].filter((path) => !isHere.has(path))
    if (added.length + removed.length === 0) return
    const there = new Set(await this.#both.production.subscriptions())
    for (const path of added)
      if (!there.has(path)) await this.#both.production.subscribe(path, true)
    for (const path of removed)
      if (there.has(path)) await this.#both.production.subscribe(path, false)
    this.#ledger.recordSubscriptions(this.#user, here)
    this.#folders += added.length + removed.length
  }

  #result(pushes: readonly FolderPush[]): PushResult {
    const sum: FolderCounts = noCounts()
    for (const { counts } of pushes) for (const key of COUNTS) sum[key] += counts[key]
    return {
      ...sum,
      folders: this.#folders,
      items: sum.appended + sum.stored + sum.expunged + sum.twins + sum.refiled + this.#folders,
      refused: pushes.flatMap(({ refusal }) => (refusal === undefined ? [] : [refusal])),
    }
  }
}

const COUNTS = ['appended', 'stored', 'expunged', 'twins', 'conflicts', 'refiled', 'pads'] as const

/** A folder of the replica: what IMAP cannot do there, doveadm does. */
export class ApplianceFolder extends ImapFolder implements ApplianceSide {
  readonly #doveadm: Doveadm
  readonly #user: string
  readonly #mailbox: string

  constructor(both: Both, doveadm: Doveadm, user: string, path: string) {
    super(both.appliance, path)
    this.#doveadm = doveadm
    this.#user = user
    this.#mailbox = path
  }

  async spread(uidNext: number): Promise<void> {
    await this.#doveadm.call('mailboxUpdate', {
      user: this.#user,
      mailbox: this.#mailbox,
      minNextUid: String(uidNext),
    })
  }
}
