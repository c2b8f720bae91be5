import type { Both } from './backsync-connections.ts'
import { folderPlan } from './backsync-folders.ts'
import { ImapFolder } from './backsync-mailbox.ts'
import type { Ledger } from './ledger.ts'
import { type Messages, sameFlags } from './merge.ts'
import type { FolderStatus } from './plan.ts'

/** One way in which both servers differ. */
export type Difference = {
  readonly path: string
  readonly uid?: number
  readonly what: 'missing' | 'content' | 'flags' | 'folder' | 'uid-validity' | 'uid-next' | 'name'
  /** `appliance`: it would be lost with the appliance. `production`: production did it by itself. */
  readonly owner: 'appliance' | 'production'
}

export const inWords = ({ path, uid, what, owner }: Difference): string =>
  `${path}${uid === undefined ? '' : ` UID ${uid}`}: ${what} (${owner === 'appliance' ? 'not yet at production' : 'of production only'})`

/** How far a folder was compared: all UIDs below `floor` meant the same messages when both sides stood at `at`. */
export type Compared = { readonly at: string; readonly floor: number; readonly validity: number }

/**
 * Compares every folder of an account message by message. `compared` remembers what cannot have changed since the last
 * time, since a UID never means another message.
 */
export async function differencesOf(
  both: Both,
  ledger: Ledger,
  user: string,
  compared: Map<string, Compared>,
): Promise<Difference[]> {
  const [here, there] = await Promise.all([both.appliance.folders(), both.production.folders()])
  const plan = folderPlan(ledger.folders(user), here, there)
  const found: Difference[] = []
  const [near, far] = [byPath(here), byPath(there)]
  for (const { path, production, snapshot } of plan.pairs) {
    const [a, p] = [near.get(path), far.get(production)]
    if (a === undefined || p === undefined) continue
    if (path !== production) found.push({ path, what: 'name', owner: 'production' })
    if (a.uidValidity !== p.uidValidity)
      found.push({ path, what: 'uid-validity', owner: 'appliance' })
    const key = `${user}\n${path}`
    const before = compared.get(key)
    const at = `${placeOf(a)} ${placeOf(p)}`
    if (before?.at === at) continue
    const sides = {
      appliance: new ImapFolder(both.appliance, path),
      production: new ImapFolder(both.production, production),
    }
    const baseline = () => ledger.folder(user, snapshot ?? path)?.messages ?? new Map()
    const floor = before?.validity === p.uidValidity ? before.floor : 1
    const differences = await messageDifferences(path, sides, baseline, floor)
    found.push(...differences)
    const hasModSeqs = a.highestModSeq > 0n && p.highestModSeq > 0n
    if (differences.some(({ what }) => what === 'content')) compared.delete(key)
    else
      compared.set(key, {
        at: differences.length === 0 && hasModSeqs ? at : '',
        floor: Math.min(a.uidNext, p.uidNext),
        validity: p.uidValidity,
      })
  }
  found.push(...folderDifferences(plan, near))
  return found
}

function folderDifferences(
  plan: ReturnType<typeof folderPlan>,
  appliance: ReadonlyMap<string, FolderStatus>,
): Difference[] {
  const paired = new Set(plan.pairs.map(({ path }) => path))
  const deleted = new Set(plan.deletedThere)
  return [
    ...[...appliance.keys()]
      .filter((path) => !paired.has(path))
      .map((path) => ({
        path,
        what: 'folder' as const,
        owner: deleted.has(path) ? ('production' as const) : ('appliance' as const),
      })),
    ...plan.removes.map(({ path }) => ({
      path,
      what: 'folder' as const,
      owner: 'appliance' as const,
    })),
  ]
}

type Sides = { readonly appliance: ImapFolder; readonly production: ImapFolder }

/** Flags and presence of every message; INTERNALDATE and size of those from UID `floor` on. */
async function messageDifferences(
  path: string,
  sides: Sides,
  baselineOf: () => Messages,
  floor: number,
): Promise<Difference[]> {
  const [{ messages: mine }, { messages: theirs }] = await Promise.all([
    sides.appliance.read(),
    sides.production.read(),
  ])
  const found: Omit<Difference, 'owner'>[] = []
  const unproved: number[] = []
  for (const [uid, flags] of mine) {
    const there = theirs.get(uid)
    if (there === undefined) found.push({ path, uid, what: 'missing' })
    else if (!sameFlags(there, flags)) found.push({ path, uid, what: 'flags' })
    if (there !== undefined && uid >= floor) unproved.push(uid)
  }
  for (const uid of theirs.keys()) if (!mine.has(uid)) found.push({ path, uid, what: 'missing' })
  const [stampsHere, stampsThere] = await Promise.all([
    sides.appliance.stamps(unproved),
    sides.production.stamps(unproved),
  ])
  for (const uid of unproved)
    if (stampsHere.get(uid) !== stampsThere.get(uid)) found.push({ path, uid, what: 'content' })
  if (found.length === 0) return []
  const baseline = baselineOf()
  return found.map((difference) => ({ ...difference, owner: ownerOf(difference, baseline, mine) }))
}

/** A difference is production's own when the appliance is as both agreed last. */
function ownerOf(
  { uid = 0, what }: Omit<Difference, 'owner'>,
  baseline: Messages,
  mine: Messages,
): Difference['owner'] {
  const [before, here] = [baseline.get(uid), mine.get(uid)]
  if (what === 'content') return 'appliance'
  if (what === 'missing')
    return (before === undefined) === (here === undefined) ? 'production' : 'appliance'
  const isSettled = before !== undefined && here !== undefined && sameFlags(before, here)
  return isSettled ? 'production' : 'appliance'
}

const placeOf = ({ uidNext, highestModSeq, messages }: FolderStatus): string =>
  `${uidNext} ${highestModSeq} ${messages}`

const byPath = (folders: readonly FolderStatus[]): ReadonlyMap<string, FolderStatus> =>
  new Map(folders.map((folder) => [folder.path, folder]))
