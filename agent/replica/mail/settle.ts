import type { Doveadm } from './doveadm.ts'
import type { FolderState, Ledger } from './ledger.ts'
import { type FolderStatus, hasReached } from './plan.ts'
import { ranges, replicaFlags, replicaFolders, replicaSubscriptions } from './reading.ts'

export type Stores = {
  readonly doveadm: Doveadm
  readonly ledger: Ledger
}

/** What a settling found: messages written, folder by folder, and the folders whose content changed. */
export type Settled = {
  readonly items: number
  readonly changed: readonly string[]
  readonly replica: readonly FolderStatus[]
}

/**
 * Brings the ledger up to date from the replica, reading no more than what changed. `production` is what production
 * was seen to hold before the pull that led here: it is noted for the folders in which the replica has reached it.
 * For the others, and without it, the ledger keeps what it knew of production.
 * @throws {PeerUnreachable} {DoveadmRefused} {LedgerDamaged}
 */
export async function settle(
  stores: Stores,
  user: string,
  production: readonly FolderStatus[] = [],
): Promise<Settled> {
  const { doveadm, ledger } = stores
  const replica = await replicaFolders(doveadm, user)
  const known = new Map(ledger.folders(user).map((folder) => [folder.path, folder]))
  const seen = new Map(production.map((folder) => [folder.path, folder]))
  const changed: string[] = []
  const unchanged: FolderState[] = []
  let items = 0
  for (const folder of replica) {
    const then = known.get(folder.path)
    known.delete(folder.path)
    const state = stateAfter(then, folder, seen.get(folder.path))
    if (then !== undefined && isCurrent(then, folder)) {
      if (!isSame(then, state)) unchanged.push(state)
      continue
    }
    items += await settleFolder(stores, user, then, folder, { ...state, proved: false })
    changed.push(folder.path)
  }
  for (const path of known.keys()) ledger.forgetFolder(user, path)
  ledger.recordStates(user, unchanged)
  return { items, changed: [...changed, ...known.keys()], replica }
}

/** Brings the ledger's list of subscriptions up to date from the replica, and answers it. */
export async function settleSubscriptions(stores: Stores, user: string): Promise<string[]> {
  const { doveadm, ledger } = stores
  const now = await replicaSubscriptions(doveadm, user)
  if (ledger.subscriptions(user).join('\n') !== now.join('\n'))
    ledger.recordSubscriptions(user, now)
  return now
}

async function settleFolder(
  stores: Stores,
  user: string,
  then: FolderState | undefined,
  now: FolderStatus,
  state: FolderState,
): Promise<number> {
  const { doveadm, ledger } = stores
  const path = now.path
  const isAnew =
    then === undefined ||
    then.uidValidity !== now.uidValidity ||
    then.highestModSeq > now.highestModSeq
  if (isAnew) {
    const messages = new Map<number, readonly string[]>()
    for (const [first, last] of ranges(now.messages))
      for (const [uid, flags] of await replicaFlags(doveadm, user, path, [`${first}:${last}`]))
        messages.set(uid, flags)
    ledger.recordFolder(user, { ...state, messages })
    return messages.size
  }
  const news = ['(', 'uid', `${then.uidNext}:*`, 'or', 'modseq', `${then.highestModSeq + 1n}`, ')']
  const changed = await replicaFlags(doveadm, user, path, news)
  const added = [...changed.keys()].filter((uid) => uid >= then.uidNext).length
  const gone = ledger.messageCount(user, path) + added - now.messages
  const present = gone === 0 ? undefined : await presentUids(doveadm, user, now)
  ledger.applyFolderDelta(user, { state, changed, ...(present === undefined ? {} : { present }) })
  return changed.size + Math.abs(gone)
}

async function presentUids(
  doveadm: Doveadm,
  user: string,
  { path, messages }: FolderStatus,
): Promise<number[]> {
  const uids: number[] = []
  for (const [first, last] of ranges(messages))
    uids.push(...(await replicaFlags(doveadm, user, path, [`${first}:${last}`])).keys())
  return uids
}

const isCurrent = (then: FolderState, now: FolderStatus): boolean =>
  then.uidValidity === now.uidValidity &&
  then.uidNext === now.uidNext &&
  then.highestModSeq === now.highestModSeq

const isSame = (a: FolderState, b: FolderState): boolean =>
  a.productionUidNext === b.productionUidNext &&
  a.productionModSeq === b.productionModSeq &&
  a.productionMessages === b.productionMessages &&
  a.productionUnseen === b.productionUnseen

function stateAfter(
  then: FolderState | undefined,
  replica: FolderStatus,
  production: FolderStatus | undefined,
): FolderState {
  const reached = production !== undefined && hasReached(replica, production)
  const pulled = {
    productionUidNext: then?.productionUidNext ?? 0,
    productionModSeq: then?.productionModSeq ?? 0n,
    productionMessages: then?.productionMessages ?? 0,
    productionUnseen: then?.productionUnseen ?? 0,
  }
  return {
    path: replica.path,
    uidValidity: replica.uidValidity,
    uidNext: replica.uidNext,
    highestModSeq: replica.highestModSeq,
    ...(reached ? pulledFrom(production) : pulled),
    proved: then?.proved === true && then.uidValidity === replica.uidValidity,
  }
}

const pulledFrom = (production: FolderStatus) => ({
  productionUidNext: production.uidNext,
  productionModSeq: production.highestModSeq,
  productionMessages: production.messages,
  productionUnseen: production.unseen,
})
