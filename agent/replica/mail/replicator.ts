import { setTimeout as delay } from 'node:timers/promises'
import type { Clock } from '../../../firmware/clock.ts'
import type { Log } from '../../../firmware/log.ts'
import type { Settings } from '../../config.ts'
import { Account, type AccountStatus } from './account.ts'
import { Connections } from './connections.ts'
import type { Doveadm } from './doveadm.ts'
import { openProduction, PeerUnreachable } from './imap.ts'
import { type Ledger, LedgerUnwritable } from './ledger.ts'
import { Outage } from './outage.ts'
import {
  empty,
  follow,
  Halted,
  isExpected,
  type PassContext,
  PullFailed,
  stutterPass,
} from './passes.ts'
import { afterCheck, arrivals, dropped, roundMs } from './plan.ts'
import { replicaFolders } from './reading.ts'
import { settle } from './settle.ts'

export type ReplicatorOptions = {
  readonly settings: Settings
  readonly users: readonly string[]
  readonly ledger: Ledger
  readonly doveadm: Doveadm
  readonly log: Log
  readonly clock: Clock
  /** An account became complete, or ceased to be. */
  readonly onComplete?: (user: string, complete: boolean) => void
}

export type ReplicaStatus = {
  readonly paused: boolean
  /** Why no account can be replicated at present. */
  readonly lost?: string
  readonly complete: number
  readonly total: number
  readonly accounts: readonly AccountStatus[]
}

/** Warm connections to production: most servers allow some hundreds in all, and each costs both sides memory. */
const CONNECTIONS_MAX = 128
const IDLE_MS = 5 * 60_000
const HINTED_ROUND_MS = 250
/** The second one sees what took its time to arrive in a mailbox. */
const HINTED_ROUNDS = 2
/** A pull that production holds up is cut off after this time when standing in cannot wait for it. */
const PAUSE_GRACE_MS = 300
const PAUSE_POLL_MS = 50
/** Passes in a row that found a quiet production and yet another replica. */
const UNEQUAL_MAX = 3
const BEHIND_MAX = 3
const WAKE_MS_MAX = 60_000
/** From a pass that was not quiet to the next. */
const PASS_GAP_MS = 200

/**
 * Keeps the replica of every account equal to production: first by stutter-step passes until one is quiet, then by
 * following changes. What one account meets delays no other.
 */
export class Replicator {
  readonly #options: ReplicatorOptions
  readonly #accounts: ReadonlyMap<string, Account>
  readonly #connections: Connections
  readonly #running = new Map<Account, Promise<void>>()
  #passes = 0
  #halt = new AbortController()
  #paused = false
  #wake: () => void = () => {}
  #failed: { readonly error: unknown } | undefined
  /** Looks at every account that are still to begin. */
  #rounds = { left: 0, nextMs: 0 }
  #averageCheckMs = 1
  readonly #outage: Outage<Account>

  constructor(options: ReplicatorOptions) {
    this.#options = options
    const { settings, users, ledger } = options
    this.#accounts = new Map(users.map((user) => [user, new Account(ledger.account(user))]))
    this.#outage = new Outage(users.length)
    this.#connections = new Connections({
      open: (user) => openProduction(settings, user, { maxIdleTime: IDLE_MS }),
      limit: CONNECTIONS_MAX,
      onChange: (user) => this.#noticed(user),
    })
  }

  /** Replicates until the signal aborts. @throws {LedgerDamaged} and whatever nobody expected */
  async run(signal: AbortSignal): Promise<void> {
    const stop = () => this.#wake()
    signal.addEventListener('abort', stop)
    try {
      await this.#verify(signal)
      while (!signal.aborted) {
        if (this.#failed !== undefined) throw this.#failed.error
        const nowMs = this.#nowMs()
        if (!this.#paused) this.#startDueTurns(nowMs)
        await this.#nextEvent(nowMs)
      }
    } finally {
      signal.removeEventListener('abort', stop)
      await this.pause()
    }
  }

  /** Answers when no pull is running any more; nothing then touches the replica or the ledger until `resume`. */
  async pause(): Promise<void> {
    this.#paused = true
    this.#halt.abort(new Halted())
    const grace = new AbortController()
    const ended = Promise.all(this.#running.values()).then(() => grace.abort())
    await this.#options.clock.sleep(PAUSE_GRACE_MS, grace.signal).catch(() => undefined)
    while (this.#running.size > 0) {
      this.#options.log('info', 'pull.cut-off', { accounts: this.#running.size })
      this.#connections.close()
      await this.#options.doveadm.endWorkers().catch((error: unknown) => {
        if (!(error instanceof PeerUnreachable)) throw error
      })
      await Promise.race([ended, delay(PAUSE_POLL_MS)])
    }
    this.#connections.close()
  }

  resume(): void {
    this.#halt = new AbortController()
    this.#paused = false
    this.#outage.forget()
    for (const account of this.#accounts.values()) account.forgive()
    this.#wake()
  }

  /**
   * Something may have changed: in a user's account (then it is looked at until the change is seen, see `Burst`), or
   * somewhere (then every account is looked at soon).
   */
  hint(user: string | undefined, _path?: string): void {
    const nowMs = this.#nowMs()
    this.#outage.hinted(nowMs)
    if (user !== undefined) this.#accounts.get(user)?.hint(nowMs)
    else this.#rounds = { left: HINTED_ROUNDS, nextMs: Math.max(nowMs, this.#rounds.nextMs) }
    this.#wake()
  }

  /**
   * Every account must prove again, by passes until one is quiet, that it equals production: after a failback.
   * Accounts whose equality the caller vouches for stay complete meanwhile.
   */
  reprove(vouched: ReadonlySet<string> = new Set()): void {
    for (const account of this.#accounts.values()) {
      if (!vouched.has(account.user)) this.#setComplete(account, false)
      account.passDueMs = this.#nowMs()
      account.lookAt(this.#nowMs())
    }
    this.#wake()
  }

  /** Makes the ledger agree with the replica, also while paused. @throws {PeerUnreachable} {DoveadmRefused} */
  async settle(user: string): Promise<void> {
    const account = this.#accounts.get(user)
    if (account !== undefined) await this.#running.get(account)
    await settle(this.#options, user)
  }

  status(): ReplicaStatus {
    const nowMs = this.#nowMs()
    const accounts = [...this.#accounts.values()].map((account) => account.status(nowMs))
    return {
      paused: this.#paused,
      ...(this.#outage.because === undefined ? {} : { lost: this.#outage.because }),
      complete: accounts.filter(({ complete }) => complete).length,
      total: accounts.length,
      accounts,
    }
  }

  #nowMs(): number {
    return this.#options.clock.now()
  }

  /** An agent that ended while a pull was dropping folders could not say so: complete accounts must still have all. */
  async #verify(signal: AbortSignal): Promise<void> {
    const { ledger, doveadm, log } = this.#options
    for (const account of this.#accounts.values()) {
      if (!account.complete) continue
      if (signal.aborted || this.#paused) return
      const known = ledger.folders(account.user)
      const lost = dropped(known, known, await replicaFolders(doveadm, account.user))
      if (lost.length === 0) continue
      log('warn', 'replica.damaged', { user: account.user, folders: lost.length })
      this.#setComplete(account, false)
    }
  }

  #startDueTurns(nowMs: number): void {
    this.#beginRound(nowMs)
    const waiting = [...this.#accounts.values()]
      .filter((account) => !this.#running.has(account))
      .sort((a, b) => a.dueMs() - b.dueMs())
    const { nextTryMs } = this.#outage
    if (nextTryMs !== undefined) {
      const [first] = waiting
      const isDue = this.#running.size === 0 && nextTryMs <= nowMs
      if (isDue && first !== undefined) this.#start(first, first.passDueMs <= nowMs)
      return
    }
    const { concurrency } = this.#options.settings.replication
    for (const account of waiting) {
      if (account.dueMs() > nowMs) return
      const isPass = account.passDueMs <= nowMs
      const checks = this.#running.size - this.#passes
      if ((isPass ? this.#passes : checks) < concurrency) this.#start(account, isPass)
    }
  }

  #beginRound(nowMs: number): void {
    if (this.#rounds.left === 0 || this.#rounds.nextMs > nowMs) return
    for (const account of this.#accounts.values()) account.lookAt(nowMs)
    const gapMs = roundMs(HINTED_ROUND_MS, this.#accounts.size, this.#averageCheckMs)
    this.#rounds = { left: this.#rounds.left - 1, nextMs: nowMs + gapMs }
  }

  #start(account: Account, isPass: boolean): void {
    if (isPass) this.#passes += 1
    const turn = this.#turn(account, isPass)
      .catch((error: unknown) => {
        this.#failed ??= { error }
      })
      .finally(() => {
        if (isPass) this.#passes -= 1
        this.#running.delete(account)
        this.#wake()
      })
    this.#running.set(account, turn)
  }

  async #turn(account: Account, isPass: boolean): Promise<void> {
    const { settings, log, ledger } = this.#options
    const signal = this.#halt.signal
    account.begin()
    try {
      await this.#connections.use(account.user, async (client) => {
        const { user, anew } = account
        const context = { stores: this.#options, client, user, log, anew, signal }
        await (isPass ? this.#pass(account, context) : this.#check(account, context))
      })
      this.#reached()
      if (account.failures > 0) ledger.record(account.user, { failures: 0, error: undefined })
      account.succeeded()
    } catch (error: unknown) {
      this.#refused(account, error, signal.aborted)
    }
    const { checkMs } = settings.replication
    const gapMs = roundMs(checkMs, this.#accounts.size, this.#averageCheckMs)
    account.lookAt(this.#nowMs() + gapMs)
  }

  async #pass(account: Account, context: PassContext): Promise<void> {
    const { ledger, log, clock, settings } = this.#options
    const beganMs = this.#nowMs()
    account.copying = true
    const pass = await stutterPass(context).finally(() => {
      account.copying = false
    })
    const { user } = account
    const complete = pass.quiet && pass.differences.length === 0
    account.unequal = pass.quiet && !complete ? account.unequal + 1 : 0
    account.notes = pass.notes
    log('info', 'pass.ended', { user, ...pass, tookMs: Math.round(this.#nowMs() - beganMs) })
    const { passes } = ledger.account(user)
    ledger.record(user, { passes: passes + 1, lastPassAtMs: clock.date().getTime() })
    account.lastPassAtMs = clock.date().getTime()
    if (account.unequal >= UNEQUAL_MAX) await this.#pullAnew(account, pass.unequal)
    if (account.unequal >= UNEQUAL_MAX)
      throw new PullFailed(user, `differs from production: ${pass.differences.join('; ')}`, [])
    if (!complete) {
      const { checkMs } = settings.replication
      account.passDueMs = this.#nowMs() + (account.complete ? checkMs : PASS_GAP_MS)
      return
    }
    this.#setComplete(account, true)
    account.inSyncMs = beganMs
    account.behind = 0
    account.passDueMs = this.#nowMs() + settings.replication.sweepMs
  }

  /** The last means against folders that stay unequal; each is worth it once. */
  async #pullAnew(account: Account, unequal: readonly string[]): Promise<void> {
    const { user, anew } = account
    for (const path of unequal.filter((folder) => !anew.has(folder))) {
      this.#setComplete(account, false)
      this.#options.log('warn', 'folder.pulled-anew', { user })
      anew.add(path)
      account.unequal = 0
      await empty(this.#options, user, path)
    }
  }

  async #check(account: Account, context: PassContext): Promise<void> {
    const beganMs = this.#nowMs()
    const known = this.#options.ledger.folders(account.user)
    const { seen, outcome } = await follow(context)
    if (outcome === 'nothing')
      this.#averageCheckMs += (this.#nowMs() - beganMs - this.#averageCheckMs) / 16
    if (outcome === 'nothing' || outcome === 'pulled') {
      account.inSyncMs = beganMs
      account.behind = 0
    } else {
      account.behind = outcome === 'account' ? BEHIND_MAX : account.behind + 1
      if (account.behind >= BEHIND_MAX) account.passDueMs = this.#nowMs()
      account.lookAt(this.#nowMs())
    }
    if (account.burst !== undefined)
      account.burst = afterCheck(account.burst, beganMs, arrivals(known, seen))
  }

  #refused(account: Account, error: unknown, halted: boolean): void {
    const { ledger, log } = this.#options
    const { user } = account
    if (!isExpected(error)) throw error
    if (error instanceof PullFailed && error.dropped.length > 0) {
      log('warn', 'replica.damaged', { user, folders: error.dropped.length })
      // In memory in any case: whoever asks must not be told otherwise because the medium is full.
      this.#noted(() => this.#setComplete(account, false))
    }
    if (halted) {
      account.lookAt(this.#nowMs())
      return
    }
    const isPeer = error instanceof PeerUnreachable
    if (isPeer && this.#outage.unreached(account, error.message, this.#nowMs()))
      log('warn', 'peer.lost', { because: error.message })
    if (!isPeer && account.error !== error.message) log('warn', 'account.failed', { user, error })
    account.failed(error.message, this.#nowMs())
    if (isPeer || error instanceof LedgerUnwritable) return
    this.#noted(() => ledger.record(user, { error: error.message, failures: account.failures }))
  }

  /** What is only for people to read must not end anything when there is no room for it. */
  #noted(write: () => void): void {
    try {
      write()
    } catch (error: unknown) {
      if (!(error instanceof LedgerUnwritable)) throw error
      this.#options.log('error', 'ledger.full', { error })
    }
  }

  #reached(): void {
    const suffered = this.#outage.reached()
    if (suffered === undefined) return
    this.#options.log('info', 'peer.found')
    for (const account of suffered) account.forgive()
  }

  #setComplete(account: Account, complete: boolean): void {
    if (account.complete === complete) return
    const { ledger, log, onComplete } = this.#options
    // Withdrawn at once, complete only once that is on the medium.
    if (!complete) account.complete = false
    ledger.record(account.user, { complete })
    account.complete = complete
    if (!complete) account.passDueMs = this.#nowMs()
    log('info', complete ? 'account.completed' : 'account.withdrawn', { user: account.user })
    onComplete?.(account.user, complete)
  }

  #noticed(user: string): void {
    this.#accounts.get(user)?.lookAt(this.#nowMs())
    this.#wake()
  }

  /** When the next turn is due of those that were not due at `nowMs`: these run, or wait for one that ends. */
  #nextMs(nowMs: number): number {
    const { nextTryMs } = this.#outage
    if (nextTryMs !== undefined)
      return this.#running.size > 0 ? Number.POSITIVE_INFINITY : nextTryMs
    let nextMs = this.#rounds.left > 0 ? this.#rounds.nextMs : Number.POSITIVE_INFINITY
    for (const account of this.#accounts.values()) {
      const dueMs = account.dueMs()
      if (dueMs > nowMs && !this.#running.has(account)) nextMs = Math.min(nextMs, dueMs)
    }
    return nextMs
  }

  /** `nowMs` is the time at which turns were started: what became due since must not be slept through. */
  async #nextEvent(nowMs: number): Promise<void> {
    const latestMs = nowMs + WAKE_MS_MAX
    const nextMs = this.#paused ? latestMs : Math.min(latestMs, this.#nextMs(nowMs))
    const sleeping = new AbortController()
    this.#wake = () => sleeping.abort()
    await this.#options.clock
      .sleep(Math.max(1, nextMs - this.#nowMs()), sleeping.signal)
      .catch(() => undefined)
    this.#wake = () => {}
  }
}
