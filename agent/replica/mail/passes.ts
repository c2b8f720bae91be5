import type { ImapFlow } from 'imapflow'
import type { Log } from '../../../firmware/log.ts'
import { type DoveadmCommand, DoveadmRefused, stepAside } from './doveadm.ts'
import {
  asPeerError,
  CertificateUnexpected,
  CredentialRefused,
  PeerRefused,
  PeerUnreachable,
} from './imap.ts'
import { type FolderState, LedgerUnwritable } from './ledger.ts'
import {
  differences,
  dropped,
  type FolderStatus,
  isQuiet,
  overlooked,
  pullFor,
  specialUseDifferences,
} from './plan.ts'
import {
  type LookOptions,
  lookAtReplica,
  lookCommands,
  type MessageRow,
  productionFolders,
  productionRows,
  productionSubscriptions,
  type ReplicaLook,
  ROWS_AT_ONCE,
  ranges,
  replicaLookOf,
  replicaRows,
} from './reading.ts'
import { type Settled, type Stores, settle } from './settle.ts'

/** A pull that did not come to a good end. `dropped` names the folders that the replica has lost. */
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

/** Why a pull ended although nothing was wrong. */
export class Halted extends Error {
  override readonly name = 'Halted'
}

/** Whether a turn may end like this: another one may do better, and a person can read why. */
export const isExpected = (error: unknown): error is Error =>
  error instanceof PullFailed ||
  error instanceof Halted ||
  error instanceof PeerUnreachable ||
  error instanceof PeerRefused ||
  error instanceof CredentialRefused ||
  error instanceof CertificateUnexpected ||
  error instanceof DoveadmRefused ||
  error instanceof LedgerUnwritable

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
  /** Folders among whose messages differences were found. */
  readonly unequal: readonly string[]
}

export type PassContext = {
  readonly stores: Stores
  /** An open connection to the account at production, used by nobody else meanwhile. */
  readonly client: ImapFlow
  readonly user: string
  readonly log: Log
  /** Folders that were pulled anew because they differed: what differs still is how production describes itself. */
  readonly anew: ReadonlySet<string>
  /** Between two steps the pass ends when this aborts. */
  readonly signal: AbortSignal
}

const BACKUPS_MAX = 3
const WORDS_MAX = 10

/**
 * One stutter-step pass (US patent 9448898): production is looked at, pulled, compared and looked at again.
 * @throws {PullFailed} {PeerUnreachable} {PeerRefused} {DoveadmRefused} {LedgerDamaged}
 */
export async function stutterPass(context: PassContext): Promise<Pass> {
  const { client, stores, user, signal } = context
  const before = await atProduction(() => productionFolders(client))
  const look = await pull(context, before)
  const settled = await settle(stores, user, before, look)
  signal.throwIfAborted()
  const proof = await prove(context, look, settled)
  const wanted = await atProduction(() => productionSubscriptions(client))
  const after = await atProduction(() => productionFolders(client))
  return {
    items: settled.items,
    quiet: isQuiet(before, after),
    differences: [
      ...differences(after, look.folders),
      ...proof.differences,
      ...subscriptionDifferences(wanted, look.subscriptions),
    ].slice(0, WORDS_MAX),
    notes: [...proof.notes, ...specialUseDifferences(before, look.specialUses)],
    unequal: proof.unequal,
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
  const wanted = wantedNow(context, seen)
  if (wanted.what !== 'folders') return { seen, outcome: wanted.what }
  const look = await pull(context, seen, wanted.paths)
  await settle(stores, user, seen, look)
  const left = wantedNow(context, seen)
  return { seen, outcome: left.what === 'nothing' ? 'pulled' : 'behind' }
}

export type Outcome = 'nothing' | 'pulled' | 'behind' | 'account'

const wantedNow = ({ stores: { ledger }, user }: PassContext, seen: readonly FolderStatus[]) =>
  pullFor(ledger.folders(user), ledger.subscriptions(user), seen)

/** Pulls until it succeeds, a bounded number of times, and answers what the replica then holds. */
async function pull(
  { stores, user, signal, log }: PassContext,
  production: readonly FolderStatus[],
  paths?: readonly string[],
): Promise<ReplicaLook> {
  signal.throwIfAborted()
  const known = stores.ledger.folders(user)
  const messages = production.reduce((sum, folder) => sum + folder.messages, 0)
  const options = {
    special: production
      .filter(({ specialUse }) => specialUse !== undefined)
      .map(({ path }) => path),
    rows: known.length === 0 && messages <= ROWS_AT_ONCE,
  }
  const first = overlooked(known, production)
    .filter(({ path }) => paths === undefined || paths.includes(path))
    .map((folder) => stepAside(user, folder))
  for (let n = 1; ; n += 1) {
    const { because, look } = await backup(
      { stores, user, first },
      paths,
      paths ? undefined : options,
    )
    if (because === undefined) return look
    const lost = dropped(known, production, look.folders)
    // Before another try mends it, the account must be known to be damaged.
    if (lost.length > 0 || n === BACKUPS_MAX || signal.aborted)
      throw new PullFailed(user, because, lost)
    log('debug', 'backup.repeated', { user, because, tries: n })
  }
}

type Backup = {
  readonly stores: Stores
  readonly user: string
  readonly first: readonly DoveadmCommand[]
}

/** One backup; `because` tells why it did not succeed. */
async function backup(
  { stores: { doveadm }, user, first }: Backup,
  paths: readonly string[] | undefined,
  options: LookOptions = { special: [], rows: false },
): Promise<{ readonly because: string | undefined; readonly look: ReplicaLook }> {
  try {
    const { exitCode, results } = await doveadm.backup(
      user,
      paths,
      lookCommands(user, options),
      first,
    )
    const because = exitCode === 0 ? undefined : `doveadm backup ended with exit code ${exitCode}`
    return { because, look: replicaLookOf(results, options) }
  } catch (error: unknown) {
    if (!(error instanceof PeerUnreachable)) throw error
    return { because: error.message, look: await lookAtReplica(doveadm, user) }
  }
}

/**
 * Empties a folder of the replica so that the next passes pull it anew: the first finds that the replica lacks UIDs
 * which it cannot assign any more and drops the folder, the second copies it. For two mails that bear one UID.
 * @throws {DoveadmRefused} {PeerUnreachable}
 */
export async function empty({ doveadm }: Stores, user: string, path: string): Promise<void> {
  await doveadm.call('expunge', { user, query: ['mailbox', path, 'all'] })
}

type Proof = Pick<Pass, 'differences' | 'notes' | 'unequal'>

/** Compares, message by message, every folder that is not proved yet. */
async function prove(context: PassContext, look: ReplicaLook, { read }: Settled): Promise<Proof> {
  const { ledger } = context.stores
  const unproved = ledger.folders(context.user).filter(({ proved }) => proved !== true)
  const messages = new Map(look.folders.map((folder) => [folder.path, folder.messages]))
  const proof: { [Key in keyof Proof]: string[] } = { differences: [], notes: [], unequal: [] }
  const proved: FolderState[] = []
  for (const folder of unproved) {
    const { path } = folder
    context.signal.throwIfAborted()
    const found = await folderDifference(context, path, messages.get(path) ?? 0, read.get(path))
    if (found !== undefined && !found.tolerable) {
      proof.differences.push(found.words)
      proof.unequal.push(path)
    } else {
      proved.push({ ...folder, proved: true })
      if (found !== undefined) proof.notes.push(found.words)
    }
    if (proof.unequal.length >= WORDS_MAX) break
  }
  ledger.recordStates(context.user, proved)
  return proof
}

type Found = { readonly words: string; readonly tolerable: boolean }

/** The first difference among a folder's messages; a tolerable one only when there is no other. */
async function folderDifference(
  { client, stores, user, anew }: PassContext,
  path: string,
  messages: number,
  read: readonly MessageRow[] | undefined,
): Promise<Found | undefined> {
  const { exists } = await atProduction(() => client.mailboxOpen(path, { readOnly: true }))
  if (exists !== messages)
    return { words: `${path}: ${exists} messages, in the replica ${messages}`, tolerable: false }
  let tolerated: Found | undefined
  for (const [first, last] of ranges(messages)) {
    const [there, here] = await Promise.all([
      atProduction(() => productionRows(client, first, last)),
      read?.slice(first - 1, last) ?? replicaRange(stores, user, path, first, last),
    ])
    const found = rowDifference(path, there, here, anew.has(path))
    if (found?.tolerable === false) return found
    tolerated ??= found
  }
  return tolerated
}

async function replicaRange(
  { doveadm }: Stores,
  user: string,
  path: string,
  first: number,
  last: number,
): Promise<readonly MessageRow[]> {
  const [rows = []] = await replicaRows(doveadm, user, [{ path, query: [`${first}:${last}`] }])
  return rows
}

function rowDifference(
  path: string,
  production: readonly MessageRow[],
  replica: readonly MessageRow[],
  isAnew: boolean,
): Found | undefined {
  if (production.length !== replica.length)
    return {
      words: `${path}: ${production.length} messages read, in the replica ${replica.length}`,
      tolerable: false,
    }
  let tolerated: Found | undefined
  for (const [n, row] of production.entries()) {
    const copy = replica[n]
    for (const key of ['uid', 'flags', 'dateS', 'size'] as const) {
      if (row[key] === copy?.[key]) continue
      const words = `${path}: UID ${row.uid}: ${key} is ${row[key]}, in the replica ${copy?.[key]}`
      const tolerable = isAnew && (key === 'dateS' || key === 'size')
      if (!tolerable) return { words, tolerable }
      tolerated ??= { words, tolerable }
    }
  }
  return tolerated
}

function subscriptionDifferences(production: readonly string[], replica: readonly string[]) {
  const [there, here] = [new Set(production), new Set(replica)]
  return [
    ...production.filter((path) => !here.has(path)).map((path) => `${path}: not subscribed`),
    ...replica.filter((path) => !there.has(path)).map((path) => `${path}: subscribed`),
  ].map((words) => `${words} in the replica`)
}

/** A connection that broke in the middle, or a folder that went while it was read, is nothing unexpected. */
const atProduction = <T>(work: () => Promise<T>): Promise<T> =>
  work().catch((error: unknown) => {
    throw asPeerError(error, 'production')
  })
