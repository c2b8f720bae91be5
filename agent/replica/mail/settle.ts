import type { Doveadm } from './doveadm.ts'
import type { FolderState, Ledger } from './ledger.ts'
import { type FolderStatus, hasReached } from './plan.ts'
import {
  lookAtReplica,
  type MessageRow,
  type ReplicaLook,
  ROWS_AT_ONCE,
  type RowQuery,
  ranges,
  replicaRows,
} from './reading.ts'

export type Stores = {
  readonly doveadm: Doveadm
  readonly ledger: Ledger
}

/** What a settling found. */
export type Settled = {
  /** Messages that were new, changed or gone. */
  readonly items: number
  /** The folders of the replica. */
  readonly replica: readonly FolderStatus[]
  /** All messages of folders that had to be read as a whole, as long as they are few. */
  readonly read: ReadonlyMap<string, readonly MessageRow[]>
}

/** A delta's size is not known beforehand. */
const DELTA_ROWS = 500
/** So many messages of folders read as a whole are handed on. */
const READ_MAX = 4 * ROWS_AT_ONCE

/**
 * Brings the ledger up to date from the replica, reading no more than what changed; `look` saves a look at the replica
 * to a caller who has just had one. `production` is what production was seen to hold before the pull that led here: it
 * is noted for the folders in which the replica has reached it. For the others, and without it, the ledger keeps what
 * it knew of production.
 * @throws {PeerUnreachable} {DoveadmRefused} {LedgerDamaged}
 */
export async function settle(
  stores: Stores,
  user: string,
  production: readonly FolderStatus[] = [],
  look?: ReplicaLook,
): Promise<Settled> {
  const { doveadm, ledger } = stores
  const { folders, subscriptions, rows } = look ?? (await lookAtReplica(doveadm, user))
  const known = new Map(ledger.folders(user).map((folder) => [folder.path, folder]))
  const seen = new Map(production.map((folder) => [folder.path, folder]))
  const pairs = folders.map((now) => ({
    now,
    before: known.get(now.path),
    seen: seen.get(now.path),
  }))
  const stale = pairs.filter(({ now, before }) => !isCurrent(before, now))
  const pulled = pairs.filter((pair) => isCurrent(pair.before, pair.now)).map(stateAfter)
  const changes = await changesOf(stores, user, stale, rows)
  const present = new Set(folders.map(({ path }) => path))
  ledger.together(() => {
    for (const path of known.keys()) if (!present.has(path)) ledger.forgetFolder(user, path)
    for (const change of changes) record(ledger, user, change)
    ledger.recordStates(
      user,
      pulled.filter((state) => !isSame(known.get(state.path), state)),
    )
    if (ledger.subscriptions(user).join('\n') !== subscriptions.join('\n'))
      ledger.recordSubscriptions(user, subscriptions)
  })
  return {
    items: changes.reduce((sum, { items }) => sum + items, 0),
    replica: folders,
    read: readOf(changes),
  }
}

/** Brings only the ledger's list of subscriptions up to date from the replica, and answers it. @throws as `settle` */
export async function settleSubscriptions(
  { doveadm, ledger }: Stores,
  user: string,
): Promise<readonly string[]> {
  const { subscriptions } = await lookAtReplica(doveadm, user)
  ledger.recordSubscriptions(user, subscriptions)
  return subscriptions
}

type Pair = {
  readonly now: FolderStatus
  readonly before: FolderState | undefined
  readonly seen: FolderStatus | undefined
}

type Change = {
  readonly state: FolderState
  readonly isAnew: boolean
  readonly rows: readonly MessageRow[]
  /** Every UID that is left; absent when nothing is gone. */
  readonly present?: readonly number[]
  readonly items: number
}

async function changesOf(
  { doveadm, ledger }: Stores,
  user: string,
  stale: readonly Pair[],
  known: ReplicaLook['rows'],
): Promise<Change[]> {
  const plans = stale.map((pair) => ({ ...pair, isAnew: mustReadAll(pair) }))
  const rows =
    known === undefined
      ? await readAll(doveadm, user, plans)
      : plans.map(({ now }) => known.get(now.path) ?? [])
  const changes: Change[] = []
  for (const [n, pair] of plans.entries()) {
    const { now, before, isAnew } = pair
    const read = rows[n] ?? []
    const state = { ...stateAfter(pair), proved: false }
    const uidNext = before?.uidNext ?? 0
    const added = read.filter(({ uid }) => uid >= uidNext).length
    const gone = isAnew ? 0 : ledger.messageCount(user, now.path) + added - now.messages
    const change = { state, isAnew, rows: read, items: read.length + Math.abs(gone) }
    if (gone === 0) changes.push(change)
    else {
      const [left = []] = await readAll(doveadm, user, [{ now, before, isAnew: true }])
      changes.push({ ...change, present: left.map(({ uid }) => uid) })
    }
  }
  return changes
}

type Reading = Pick<Pair, 'now' | 'before'> & { readonly isAnew: boolean }

/** What is needed of each folder; folders that are small share a request. */
async function readAll(
  doveadm: Doveadm,
  user: string,
  readings: readonly Reading[],
): Promise<MessageRow[][]> {
  const results: MessageRow[][] = readings.map(() => [])
  let queries: (RowQuery & { readonly n: number })[] = []
  let size = 0
  const flush = async () => {
    const answers = await replicaRows(doveadm, user, queries)
    for (const [k, { n }] of queries.entries())
      for (const row of answers[k] ?? []) results[n]?.push(row)
    queries = []
    size = 0
  }
  for (const [n, { now, before, isAnew }] of readings.entries()) {
    const parts = isAnew
      ? [...ranges(now.messages)].map(([first, last]) => [`${first}:${last}`])
      : [
          [
            '(',
            'uid',
            `${before?.uidNext}:*`,
            'or',
            'modseq',
            `${(before?.highestModSeq ?? 0n) + 1n}`,
            ')',
          ],
        ]
    for (const query of parts) {
      queries.push({ n, path: now.path, query })
      size += isAnew ? Math.min(ROWS_AT_ONCE, now.messages) : DELTA_ROWS
      if (size >= ROWS_AT_ONCE) await flush()
    }
  }
  await flush()
  return results
}

function record(ledger: Ledger, user: string, { state, isAnew, rows, present }: Change): void {
  const shared = new Map<string, readonly string[]>()
  const messages = new Map<number, readonly string[]>()
  for (const { uid, flags: text } of rows) {
    const flags = shared.get(text) ?? (text === '' ? [] : text.split(' '))
    shared.set(text, flags)
    messages.set(uid, flags)
  }
  if (isAnew) ledger.recordFolder(user, { ...state, messages })
  else
    ledger.applyFolderDelta(user, {
      state,
      changed: messages,
      ...(present === undefined ? {} : { present }),
    })
}

function readOf(changes: readonly Change[]): Map<string, readonly MessageRow[]> {
  const read = new Map<string, readonly MessageRow[]>()
  let size = 0
  for (const { state, isAnew, rows } of changes) {
    size += rows.length
    if (isAnew && size <= READ_MAX) read.set(state.path, rows)
  }
  return read
}

const mustReadAll = ({ now, before }: Pair): boolean =>
  before === undefined ||
  before.uidValidity !== now.uidValidity ||
  // A pull that could not go on has made the folder anew.
  before.uidNext > now.uidNext ||
  before.highestModSeq > now.highestModSeq

const isCurrent = (before: FolderState | undefined, now: FolderStatus): boolean =>
  before?.uidValidity === now.uidValidity &&
  before.uidNext === now.uidNext &&
  before.highestModSeq === now.highestModSeq

const isSame = (a: FolderState | undefined, b: FolderState): boolean =>
  a?.productionUidNext === b.productionUidNext &&
  a.productionModSeq === b.productionModSeq &&
  a.productionMessages === b.productionMessages &&
  a.productionUnseen === b.productionUnseen

function stateAfter({ now, before, seen }: Pair): FolderState {
  const reached = seen !== undefined && hasReached(now, seen)
  return {
    path: now.path,
    uidValidity: now.uidValidity,
    uidNext: now.uidNext,
    highestModSeq: now.highestModSeq,
    productionUidNext: reached ? seen.uidNext : (before?.productionUidNext ?? 0),
    productionModSeq: reached ? seen.highestModSeq : (before?.productionModSeq ?? 0n),
    productionMessages: reached ? seen.messages : (before?.productionMessages ?? 0),
    productionUnseen: reached ? seen.unseen : (before?.productionUnseen ?? 0),
    proved: before?.proved === true && before.uidValidity === now.uidValidity,
  }
}
