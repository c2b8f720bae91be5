import type { Clock } from '../firmware/clock.ts'
import type { Log } from '../firmware/log.ts'
import type { Activity } from './agent.ts'
import type { Event } from './continuity/machine.ts'

/** What the way back needs of the rooms around it. */
export type WayBack = {
  readonly clock: Clock
  readonly log: Log
  readonly concurrency: number
  readonly lingerMs: number
  /** Accounts that users may have changed with us: those whose gap was made. */
  readonly accounts: () => readonly string[]
  readonly backSync: {
    /** @throws {Stranger} @throws {PeerUnreachable} */
    push(user: string, options: { final: boolean }): Promise<{ readonly items: number }>
    /** What differs between production and appliance, in words; orphans of production do not count. */
    verify(user: string): Promise<readonly string[]>
    /** Accounts that moved on either side since their last push. */
    dirty(users: readonly string[]): Promise<readonly string[]>
  }
  readonly mail: {
    /** No acceptance and no delivery from here on. */
    pause(): Promise<void>
    resume(): void
    /** Answers when nothing is queued for a local account. */
    emptied(signal: AbortSignal): Promise<void>
  }
  /** Answers when the write barrier is in force. */
  readonly frozen: (signal: AbortSignal) => Promise<void>
  readonly liveFlows: () => Promise<number>
  /** Ends the sessions that are still with us. */
  readonly endSessions: () => Promise<void>
  /** Replication takes the account over again; refused when something is on the appliance only. */
  readonly release: (user: string) => Promise<void>
  /** Whether an error means that trying again is right: production went away for now, or there is something left to push. */
  readonly passing: (error: unknown) => boolean
  readonly observe: (event: Event, because: string) => void
}

/** A round this short leaves little enough for the barrier. */
const ROUND_MS_MAX = 300
/** The barrier's promise to users: nothing stands still for longer. */
const BARRIER_MS_MAX = 450
const AGAIN_MS = 1_000
const DRAIN_MS = 250

/** Activity of prepare-to-failback: rounds of back-sync that get shorter, then one last pass under the barrier. */
export const prepareToFailBack =
  (way: WayBack): Activity =>
  async (signal) => {
    while (!signal.aborted) {
      const unproved = await converged(way, signal)
      if (unproved === undefined || (await lastPass(way, unproved, signal))) return
      await way.clock.sleep(AGAIN_MS, signal)
    }
  }

/** Activity of failback: what live sessions still change goes over too, until none is left and both sides agree. */
export const drain =
  (way: WayBack): Activity =>
  async (signal) => {
    await drainFlows(way, signal)
    await way.mail.emptied(signal)
    while (!(await released(way, signal))) await way.clock.sleep(AGAIN_MS, signal)
    way.observe({ name: 'flows-drained' }, 'no connection is ours any more and both sides agree')
  }

async function drainFlows(way: WayBack, signal: AbortSignal): Promise<void> {
  const sinceMs = way.clock.now()
  while ((await way.liveFlows()) > 0) {
    if (way.clock.now() - sinceMs >= way.lingerMs) {
      way.log('info', 'sessions.ended', { lingerMs: way.lingerMs })
      return way.endSessions()
    }
    // Not as for a hand-over: production serves users again, and what they get there must stay where it is.
    await attempt(way, signal, async () =>
      pushed(way, await way.backSync.dirty(way.accounts()), false),
    )
    await way.clock.sleep(DRAIN_MS, signal)
  }
}

/** Rounds until one is short: answers the accounts not yet shown to be equal, or nothing when production refuses for good. */
async function converged(
  way: WayBack,
  signal: AbortSignal,
): Promise<readonly string[] | undefined> {
  let users = way.accounts()
  for (let round = 1; !signal.aborted; round += 1) {
    const startedMs = way.clock.now()
    // The first round carries the bulk; from the second on UIDs are aligned for the hand-over too.
    const final = round > 1
    const outcome = await attempt(way, signal, () => pushed(way, users, final))
    if (outcome === 'refused') return undefined
    const tookMs = Math.round(way.clock.now() - startedMs)
    if (outcome === 'again') {
      round -= 1
      await way.clock.sleep(AGAIN_MS, signal)
      continue
    }
    const { items, unequal } = outcome
    way.log('info', 'back-sync.round-ended', { round, accounts: users.length, items, tookMs })
    if (!final) {
      users = way.accounts()
      continue
    }
    if (tookMs <= ROUND_MS_MAX) return unequal
    const moved = await attempt(way, signal, () => way.backSync.dirty(way.accounts()))
    if (typeof moved !== 'string') users = [...new Set([...moved, ...unequal])]
  }
  return undefined
}

/** One attempt under the write barrier; `true` when both sides agreed in time. */
async function lastPass(
  way: WayBack,
  unproved: readonly string[],
  signal: AbortSignal,
): Promise<boolean> {
  way.observe({ name: 'back-sync-converged' }, 'little enough is left for the write barrier')
  await way.frozen(signal)
  const startedMs = way.clock.now()
  await way.mail.pause()
  try {
    const outcome = await attempt(way, signal, async () => {
      const moved = await way.backSync.dirty(way.accounts())
      return pushed(way, [...new Set([...moved, ...unproved])], true)
    })
    const tookMs = Math.round(way.clock.now() - startedMs)
    const equal = typeof outcome !== 'string' && outcome.unequal.length === 0
    const agree = equal && tookMs <= BARRIER_MS_MAX
    way.log('info', 'barrier.ended', { tookMs, equal, agree })
    if (agree) way.observe({ name: 'sides-agreed' }, `equal after ${tookMs} ms of barrier`)
    else way.observe({ name: 'barrier-missed' }, `not equal within ${BARRIER_MS_MAX} ms`)
    if (agree) await ended(signal)
    return agree
  } finally {
    way.mail.resume()
  }
}

/** Pushes what is left, compares every account once more and lets go of those that are equal: `true` when all are. */
async function released(way: WayBack, signal: AbortSignal): Promise<boolean> {
  const outcome = await attempt(way, signal, async () => {
    const moved = await way.backSync.dirty(way.accounts())
    const { unequal } = await pushed(way, moved, false)
    const equal = way.accounts().filter((user) => !unequal.includes(user))
    await inParallel(equal, way.concurrency, way.release)
    return unequal.length
  })
  return outcome === 0
}

type Round = { readonly items: number; readonly unequal: readonly string[] }

/** Pushes accounts and compares each of them; users who go on working make an account unequal again. */
async function pushed(way: WayBack, users: readonly string[], final: boolean): Promise<Round> {
  let items = 0
  const unequal: string[] = []
  await inParallel(users, way.concurrency, async (user) => {
    items += (await way.backSync.push(user, { final })).items
    const [difference] = await way.backSync.verify(user)
    if (difference === undefined) return
    unequal.push(user)
    way.log('info', 'sides.differed', { user, difference })
  })
  return { items, unequal }
}

/** The answer, or `again` when production is away for now, or `refused` (and observed) when it must not be written to. */
async function attempt<T>(
  way: WayBack,
  signal: AbortSignal,
  work: () => Promise<T>,
): Promise<T | 'again' | 'refused'> {
  try {
    return await work()
  } catch (error: unknown) {
    signal.throwIfAborted()
    const problem = error instanceof Error ? error.message : String(error)
    if (way.passing(error)) {
      way.log('warn', 'back-sync.interrupted', { problem })
      return 'again'
    }
    way.log('error', 'back-sync.refused', { problem })
    way.observe({ name: 'back-sync-refused' }, problem)
    return 'refused'
  }
}

async function inParallel<T>(
  items: readonly T[],
  width: number,
  work: (item: T) => Promise<void>,
): Promise<void> {
  const left = [...items]
  const worker = async () => {
    for (let item = left.shift(); item !== undefined; item = left.shift()) await work(item)
  }
  await Promise.all(Array.from({ length: Math.min(width, items.length) }, worker))
}

const ended = (signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve(), { once: true })
  })
