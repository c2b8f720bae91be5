import type { Both } from './backsync-connections.ts'
import { folderPlan } from './backsync-folders.ts'
import { ImapFolder, type Stamped } from './backsync-mailbox.ts'
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

/**
 * Compares every folder of an account, message by message where anything moved since the last comparison; `compared`
 * remembers where both sides stood then.
 */
export async function differencesOf(
  both: Both,
  ledger: Ledger,
  user: string,
  compared: Map<string, string>,
): Promise<Difference[]> {
  const [here, there] = await Promise.all([both.appliance.folders(), both.production.folders()])
  const plan = folderPlan(ledger.folders(user), here, there)
  const found: Difference[] = []
  const [near, far] = [byPath(here), byPath(there)]
  for (const { path, production, snapshot } of plan.pairs) {
    const [a, p] = [near.get(path), far.get(production)]
    if (a === undefined || p === undefined) continue
    const key = `${user}\n${path}`
    const at = `${placeOf(a)} ${placeOf(p)}`
    if (path !== production) found.push({ path, what: 'name', owner: 'production' })
    if (a.uidValidity !== p.uidValidity)
      found.push({ path, what: 'uid-validity', owner: 'appliance' })
    if (compared.get(key) === at) continue
    const baseline = ledger.folder(user, snapshot ?? path)?.messages ?? new Map()
    const [mine, theirs] = await Promise.all([
      a.messages === 0 ? new Map() : new ImapFolder(both.appliance, path).everything(),
      p.messages === 0 ? new Map() : new ImapFolder(both.production, production).everything(),
    ])
    const differences = messageDifferences(path, baseline, mine, theirs)
    found.push(...differences)
    const hasModSeqs = a.highestModSeq > 0n && p.highestModSeq > 0n
    if (differences.length === 0 && hasModSeqs) compared.set(key, at)
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

function messageDifferences(
  path: string,
  baseline: Messages,
  mine: ReadonlyMap<number, Stamped>,
  theirs: ReadonlyMap<number, Stamped>,
): Difference[] {
  const found: Difference[] = []
  for (const [uid, here] of mine) {
    const there = theirs.get(uid)
    const before = baseline.get(uid)
    const isSettled = before !== undefined && sameFlags(before, here.flags)
    const owner = isSettled ? 'production' : 'appliance'
    if (there === undefined)
      found.push({
        path,
        uid,
        what: 'missing',
        owner: before === undefined ? 'appliance' : 'production',
      })
    else if (there.stamp !== here.stamp)
      found.push({ path, uid, what: 'content', owner: 'appliance' })
    else if (!sameFlags(there.flags, here.flags)) found.push({ path, uid, what: 'flags', owner })
  }
  for (const uid of theirs.keys())
    if (!mine.has(uid))
      found.push({
        path,
        uid,
        what: 'missing',
        owner: baseline.has(uid) ? 'appliance' : 'production',
      })
  return found
}

const placeOf = ({ uidNext, highestModSeq, messages }: FolderStatus): string =>
  `${uidNext} ${highestModSeq} ${messages}`

const byPath = (folders: readonly FolderStatus[]): ReadonlyMap<string, FolderStatus> =>
  new Map(folders.map((folder) => [folder.path, folder]))
