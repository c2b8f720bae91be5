/** A folder as a server describes it; one that can hold messages (`\Noselect` ones are left out everywhere). */
export type FolderStatus = {
  /** As on production, in Unicode, with production's own prefix and delimiter. */
  readonly path: string
  readonly uidValidity: number
  readonly uidNext: number
  readonly messages: number
  readonly unseen: number
  /** 0 where the server has no CONDSTORE (RFC 7162). */
  readonly highestModSeq: bigint
  /** RFC 6154, such as `\Sent`; only what the server itself says, never guessed from a name. */
  readonly specialUse?: string
  /** Present where it is told along with the rest, at no further cost. */
  readonly subscribed?: boolean
}

/** What the ledger says that production had when it was last pulled. */
export type Pulled = {
  readonly path: string
  readonly uidValidity: number
  readonly productionUidNext: number
  readonly productionModSeq: bigint
  readonly productionMessages: number
  readonly productionUnseen: number
}

export type Pull =
  | { readonly what: 'nothing' }
  | { readonly what: 'folders'; readonly paths: readonly string[] }
  /** Folders were made, renamed, deleted or made anew: only a pass over the whole account gets that right. */
  | { readonly what: 'account' }

/** Above this number one pass over the whole account costs less than one pull a folder. */
const FOLDERS_MAX = 6

/** What must be pulled so that the replica, with these subscriptions, follows production. */
export function pullFor(
  known: readonly Pulled[],
  subscriptions: readonly string[],
  seen: readonly FolderStatus[],
): Pull {
  const before = new Map(known.map((folder) => [folder.path, folder]))
  const subscribed = new Set(subscriptions)
  if (before.size !== seen.length) return { what: 'account' }
  const paths: string[] = []
  for (const now of seen) {
    const then = before.get(now.path)
    if (then === undefined || then.uidValidity !== now.uidValidity) return { what: 'account' }
    if (now.subscribed !== undefined && now.subscribed !== subscribed.has(now.path))
      return { what: 'account' }
    if (!isPulled(then, now)) paths.push(now.path)
  }
  if (paths.length > FOLDERS_MAX) return { what: 'account' }
  return paths.length === 0 ? { what: 'nothing' } : { what: 'folders', paths }
}

const isPulled = (then: Pulled, now: FolderStatus): boolean =>
  then.productionUidNext === now.uidNext &&
  then.productionModSeq === now.highestModSeq &&
  then.productionMessages === now.messages &&
  then.productionUnseen === now.unseen

/**
 * Folders that changed at production and that a pull would pass over all the same: dsync takes two mailboxes of equal
 * UIDNEXT, HIGHESTMODSEQ and number of messages for equal, and the replica's HIGHESTMODSEQ runs ahead of production's
 * by one with each pull of changed flags, so that production's next change makes them meet.
 */
export function overlooked(
  known: readonly (Pulled & {
    readonly uidNext: number
    readonly highestModSeq: bigint
    readonly proved?: boolean
  })[],
  seen: readonly FolderStatus[],
): { readonly path: string; readonly highestModSeq: bigint }[] {
  const production = new Map(seen.map((folder) => [folder.path, folder]))
  return known.filter((folder) => {
    const now = production.get(folder.path)
    if (now === undefined || (folder.proved === true && isPulled(folder, now))) return false
    return now.uidNext === folder.uidNext && now.highestModSeq === folder.highestModSeq
  })
}

/** Whether a folder of the replica holds at least what was seen at production. */
export const hasReached = (replica: FolderStatus, production: FolderStatus): boolean =>
  replica.uidValidity === production.uidValidity &&
  (replica.uidNext > production.uidNext || folderDifferences(production, replica).length === 0)

/** How many messages came into an account's folders since they were last pulled. */
export function arrivals(known: readonly Pulled[], seen: readonly FolderStatus[]): number {
  const before = new Map(known.map((folder) => [folder.path, folder.productionUidNext]))
  return seen
    .map(({ path, uidNext }) => Math.max(0, uidNext - (before.get(path) ?? uidNext)))
    .reduce((sum, n) => sum + n, 0)
}

/** Whether production did not change between two looks at it. */
export const isQuiet = (before: readonly FolderStatus[], after: readonly FolderStatus[]): boolean =>
  differences(before, after).length === 0 &&
  sorted(before).every((folder, n) => folder.highestModSeq === sorted(after)[n]?.highestModSeq)

/**
 * In what the folders of two servers differ, in words. MODSEQs are not compared: the replica's may be higher, since it
 * counts its own writing too, and clients may see them rise at any time (RFC 7162).
 */
export function differences(
  production: readonly FolderStatus[],
  replica: readonly FolderStatus[],
): string[] {
  const there = new Map(replica.map((folder) => [folder.path, folder]))
  const words: string[] = []
  for (const folder of production) {
    const copy = there.get(folder.path)
    there.delete(folder.path)
    if (copy === undefined) words.push(`${folder.path}: missing in the replica`)
    else words.push(...folderDifferences(folder, copy))
  }
  for (const path of there.keys()) words.push(`${path}: only in the replica`)
  return words
}

const COUNTS = ['uidValidity', 'uidNext', 'messages', 'unseen'] as const

const folderDifferences = (production: FolderStatus, replica: FolderStatus): string[] =>
  COUNTS.filter((key) => production[key] !== replica[key]).map(
    (key) => `${production.path}: ${key} is ${production[key]}, in the replica ${replica[key]}`,
  )

/** Folders whose special use is another one in the replica, in words. */
export const specialUseDifferences = (
  production: readonly FolderStatus[],
  replica: ReadonlyMap<string, string>,
): string[] =>
  production
    .filter(({ path, specialUse }) => specialUse !== undefined && replica.get(path) !== specialUse)
    .map(
      ({ path, specialUse }) =>
        `${path}: special use is ${specialUse}, in the replica ${replica.get(path) || 'none'}`,
    )

/**
 * Folders that a failed pull dropped from the replica or emptied, although production still has them: what the ledger
 * says the replica held is no longer there.
 */
export function dropped(
  known: readonly (Pulled & { readonly uidNext: number })[],
  production: readonly Pick<FolderStatus, 'path' | 'uidValidity'>[],
  replica: readonly FolderStatus[],
): string[] {
  const wanted = new Set(production.map(({ path, uidValidity }) => `${uidValidity} ${path}`))
  const left = new Map(replica.map((folder) => [`${folder.uidValidity} ${folder.path}`, folder]))
  return known
    .map((folder) => ({ ...folder, key: `${folder.uidValidity} ${folder.path}` }))
    .filter(({ key, uidNext }) => wanted.has(key) && (left.get(key)?.uidNext ?? 0) < uidNext)
    .map(({ path }) => path)
}

const sorted = (folders: readonly FolderStatus[]): FolderStatus[] =>
  [...folders].sort((a, b) => (a.path < b.path ? -1 : 1))

const BACKOFF = { firstMs: 500, mostMs: 60_000 }

/** How long to wait after so many failures in a row. */
export const backoffMs = (failures: number): number =>
  Math.min(BACKOFF.mostMs, BACKOFF.firstMs * 2 ** Math.max(0, Math.min(failures, 30) - 1))

/** Checks may take this share of the time. */
const SHARE = 0.2

/** How far apart checks of every account may begin, so that they never take more than their share of the time. */
export const roundMs = (leastMs: number, accounts: number, averageCheckMs: number): number =>
  Math.max(leastMs, (accounts * averageCheckMs) / SHARE)

/**
 * Checks that follow a hint. Production answers 250 before its delivery agent has put the mail into the mailbox, hence
 * the account is looked at again until as many messages as were hinted at have been seen.
 */
export type Burst = {
  readonly startedMs: number
  readonly step: number
  readonly owed: number
}

const BURST_MS: readonly number[] = [0, 15, 40, 80, 160, 320]
/** More hints than this at once say nothing more. */
const OWED_MAX = 1_000

export const hinted = (burst: Burst | undefined, nowMs: number): Burst => ({
  startedMs: nowMs,
  step: 0,
  owed: Math.min(OWED_MAX, (burst?.owed ?? 0) + 1),
})

/** When the next check of a burst is due. */
export const burstDueMs = (burst: Burst): number => burst.startedMs + (BURST_MS[burst.step] ?? 0)

/** The burst after a check that began at `beganMs` and saw so many messages arrive; nothing when it is over. */
export function afterCheck(burst: Burst, beganMs: number, seen: number): Burst | undefined {
  const owed = burst.owed - seen
  if (owed <= 0) return undefined
  const elapsedMs = beganMs - burst.startedMs
  // A hint that came while the check was under way starts its own series.
  if (elapsedMs < 0) return { ...burst, owed }
  const step = BURST_MS.findIndex((offsetMs, n) => n > burst.step && offsetMs > elapsedMs)
  return step === -1 ? undefined : { ...burst, step, owed }
}
