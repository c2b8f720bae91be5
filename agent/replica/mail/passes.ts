import type { ImapFlow } from 'imapflow'
import type { Log } from '../../../firmware/log.ts'
import { asPeerError, PeerUnreachable } from './imap.ts'
import type { FolderState } from './ledger.ts'
import {
  differences,
  dropped,
  type FolderStatus,
  isQuiet,
  pullFor,
  specialUseDifferences,
} from './plan.ts'
import {
  type MessageRow,
  productionFolders,
  productionRows,
  productionSubscriptions,
  ranges,
  replicaFolders,
  replicaRows,
  replicaSpecialUses,
} from './reading.ts'
import { type Settled, type Stores, settle, settleSubscriptions } from './settle.ts'

/** A pull that did not come to a good end. `dropped` names the folders that the replica has lost by it. */
export class PullFailed extends Error {
  override readonly name = 'PullFailed'
  readonly user: string
  readonly dropped: readonly string[]

  constructor(user: string, because: string, droppedFolders: readonly string[], cause?: unknown) {
    super(`${user}: ${because}`, { cause })
    this.user = user
    this.dropped = droppedFolders
  }
}

/** One stutter-step pass that came to its end. */
export type Pass = {
  /** Messages written to the ledger: what this pass found. The series of them falls until a pass is quiet. */
  readonly items: number
  /** Production did not change while the pass ran. */
  readonly quiet: boolean
  /** In what production and the replica differ; empty after a quiet pass: the account is complete. */
  readonly differences: readonly string[]
  /** Differences that do not stand in the way of serving the account. */
  readonly notes: readonly string[]
}

export type PassContext = {
  readonly stores: Stores
  /** An open connection to the account at production, used by nobody else meanwhile. */
  readonly client: ImapFlow
  readonly user: string
  readonly log: Log
  /** Between two steps the pass ends when this aborts. */
  readonly signal: AbortSignal
}

const BACKUPS_MAX = 3
const WORDS_MAX = 10

/**
 * One stutter-step pass (US patent 9448898): production is looked at, pulled, compared and looked at again.
 * @throws {PullFailed} {PeerUnreachable} {DoveadmRefused} {LedgerDamaged}
 */
export async function stutterPass(context: PassContext): Promise<Pass> {
  const { client, stores, user, signal } = context
  const before = await atProduction(() => productionFolders(client))
  await pull(context, before)
  const settled = await settle(stores, user, before)
  const subscribed = await settleSubscriptions(stores, user)
  signal.throwIfAborted()
  const unequal = await prove(context, settled)
  const wanted = await atProduction(() => productionSubscriptions(client))
  const after = await atProduction(() => productionFolders(client))
  return {
    items: settled.items,
    quiet: isQuiet(before, after),
    differences: [
      ...differences(after, settled.replica),
      ...unequal,
      ...subscriptionDifferences(wanted, subscribed),
    ].slice(0, WORDS_MAX),
    notes: specialUseDifferences(after, await replicaSpecialUses(stores.doveadm, user, after)),
  }
}

/**
 * One look at production: pulls the folders that changed since the last look. Answers how far it got: `account` when
 * only a pass over the whole account helps, `behind` when the pull did not bring all that was seen.
 * @throws as `stutterPass`
 */
export async function follow(
  context: PassContext,
): Promise<{ readonly seen: readonly FolderStatus[]; readonly outcome: Outcome }> {
  const { client, stores, user } = context
  const seen = await atProduction(() => productionFolders(client))
  const wanted = pullFor(stores.ledger.folders(user), seen)
  if (wanted.what !== 'folders') return { seen, outcome: wanted.what }
  await pull(context, seen, wanted.paths)
  await settle(stores, user, seen)
  const left = pullFor(stores.ledger.folders(user), seen)
  return { seen, outcome: left.what === 'nothing' ? 'pulled' : 'behind' }
}

export type Outcome = 'nothing' | 'pulled' | 'behind' | 'account'

async function pull(
  { stores, user, signal, log }: PassContext,
  production: readonly FolderStatus[],
  paths?: readonly string[],
): Promise<void> {
  let because = ''
  signal.throwIfAborted()
  for (let n = 1; n <= BACKUPS_MAX && !signal.aborted; n += 1) {
    try {
      const { exitCode } = await stores.doveadm.backup(user, paths)
      if (exitCode === 0) return
      because = `doveadm backup ended with exit code ${exitCode}`
    } catch (error: unknown) {
      if (!(error instanceof PeerUnreachable)) throw error
      because = error.message
    }
    log('debug', 'backup.repeated', { user, because, tries: n })
  }
  const replica = await replicaFolders(stores.doveadm, user)
  throw new PullFailed(user, because, dropped(stores.ledger.folders(user), production, replica))
}

/** Compares, message by message, every folder that is not proved yet; answers what differs. */
async function prove(context: PassContext, { replica }: Settled): Promise<string[]> {
  const { ledger } = context.stores
  const unproved = ledger.folders(context.user).filter(({ proved }) => proved !== true)
  const messages = new Map(replica.map((folder) => [folder.path, folder.messages]))
  const words: string[] = []
  const proved: FolderState[] = []
  for (const folder of unproved) {
    context.signal.throwIfAborted()
    const found = await folderProof(context, folder.path, messages.get(folder.path) ?? 0)
    if (found.length === 0) proved.push({ ...folder, proved: true })
    words.push(...found)
    if (words.length >= WORDS_MAX) break
  }
  ledger.recordStates(context.user, proved)
  return words
}

async function folderProof(
  { client, stores, user }: PassContext,
  path: string,
  messages: number,
): Promise<string[]> {
  const mailbox = await atProduction(() => client.mailboxOpen(path, { readOnly: true }))
  if (mailbox.exists !== messages)
    return [`${path}: ${mailbox.exists} messages, in the replica ${messages}`]
  for (const [first, last] of ranges(messages)) {
    const [there, here] = await Promise.all([
      atProduction(() => productionRows(client, first, last)),
      replicaRows(stores.doveadm, user, path, [`${first}:${last}`]),
    ])
    const words = rowDifferences(path, there, here)
    if (words.length > 0) return words
  }
  return []
}

function rowDifferences(
  path: string,
  production: readonly MessageRow[],
  replica: readonly MessageRow[],
): string[] {
  if (production.length !== replica.length)
    return [`${path}: ${production.length} messages read, in the replica ${replica.length}`]
  for (const [n, row] of production.entries()) {
    const copy = replica[n]
    for (const key of ['uid', 'flags', 'dateS', 'size'] as const)
      if (row[key] !== copy?.[key])
        return [`${path}: UID ${row.uid}: ${key} is ${row[key]}, in the replica ${copy?.[key]}`]
  }
  return []
}

function subscriptionDifferences(production: readonly string[], replica: readonly string[]) {
  const [there, here] = [new Set(production), new Set(replica)]
  return [
    ...production.filter((path) => !here.has(path)).map((path) => `${path}: not subscribed`),
    ...replica.filter((path) => !there.has(path)).map((path) => `${path}: subscribed`),
  ].map((words) => `${words} in the replica`)
}

/** A connection that broke in the middle tells that production was lost. */
const atProduction = <T>(work: () => Promise<T>): Promise<T> =>
  work().catch((error: unknown) => {
    throw asPeerError(error, 'production')
  })
