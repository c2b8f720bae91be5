/** A folder's name and what distinguishes it from an earlier folder of that name. */
export type FolderName = { readonly path: string; readonly uidValidity: number }

/** A folder of the appliance with its counterpart at production; `snapshot`: the ledger's name for it. */
export type Pair = {
  readonly path: string
  readonly production: string
  readonly snapshot: string | undefined
}

/** One change to the folders themselves. After each of them both sides are listed anew. */
export type FolderStep =
  /** A user renamed it: at production, then in the ledger. */
  | { readonly do: 'rename'; readonly from: string; readonly to: string }
  /** Both sides know the new name: in the ledger. */
  | { readonly do: 'follow'; readonly from: string; readonly to: string }
  | { readonly do: 'create'; readonly path: string }
  /** The appliance takes production's UIDVALIDITY for a folder that it did not get from there. */
  | { readonly do: 'adopt'; readonly path: string; readonly uidValidity: number }
  /** Both sides have deleted it: in the ledger. */
  | { readonly do: 'forget'; readonly path: string }
  /** A user deleted it. */
  | { readonly do: 'remove'; readonly path: string; readonly production: string }

export type FolderPlan = {
  /** To be done first. */
  readonly steps: readonly FolderStep[]
  readonly pairs: readonly Pair[]
  /** To be done last: what moved away must have arrived elsewhere before. */
  readonly removes: readonly Extract<FolderStep, { do: 'remove' }>[]
  /** Folders that production deleted by itself, and the appliance still has. */
  readonly deletedThere: readonly string[]
  /** Folders that production has under the same name, but not the same ones. */
  readonly strangers: readonly string[]
}

type Match = {
  readonly snapshot: FolderName
  readonly appliance: FolderName | undefined
  readonly production: FolderName | undefined
}

/**
 * How the folders of both servers belong together. A folder is known by UIDVALIDITY and name, a renamed one by a
 * UIDVALIDITY that no other folder has. Names are of no importance to what it contains: where both sides renamed a
 * folder, or the new name is taken, each side keeps its own.
 */
export function folderPlan(
  snapshot: readonly FolderName[],
  appliance: readonly FolderName[],
  production: readonly FolderName[],
): FolderPlan {
  const matches = matched(snapshot, appliance, production)
  const [known, knownThere] = [
    new Set(matches.map((match) => match.appliance?.path)),
    new Set(matches.map((match) => match.production?.path)),
  ]
  const there = new Map(production.map((folder) => [folder.path, folder]))
  const steps: FolderStep[] = []
  const pairs: Pair[] = []
  const removes: Extract<FolderStep, { do: 'remove' }>[] = []
  const deletedThere: string[] = []
  const strangers: string[] = []
  const isAnew = new Set(appliance.map(({ path }) => path).filter((path) => !known.has(path)))
  for (const match of matches) {
    const { path } = match.snapshot
    const [here, far] = [match.appliance, match.production]
    if (here === undefined && far === undefined) steps.push({ do: 'forget', path })
    else if (here === undefined && far !== undefined) {
      const remove = { do: 'remove', path, production: far.path } as const
      if (isAnew.has(path)) steps.push(remove)
      else removes.push(remove)
    } else if (here !== undefined && far !== undefined) {
      steps.push(...nameSteps(path, here.path, far.path, there))
      steps.push(...adoption(here, far))
      pairs.push({ path: here.path, production: far.path, snapshot: path })
    } else if (there.has(path) && !knownThere.has(path)) strangers.push(path)
    else deletedThere.push(path)
  }
  for (const folder of appliance) {
    if (known.has(folder.path)) continue
    const far = there.get(folder.path)
    if (far === undefined) steps.push({ do: 'create', path: folder.path })
    else if (!knownThere.has(folder.path)) {
      steps.push(...adoption(folder, far))
      pairs.push({ path: folder.path, production: far.path, snapshot: undefined })
    }
  }
  return { steps: inOrder(steps), pairs, removes: deepestFirst(removes), deletedThere, strangers }
}

const nameSteps = (
  known: string,
  here: string,
  there: string,
  production: ReadonlyMap<string, FolderName>,
): FolderStep[] => {
  if (here === known) return []
  if (there === here) return [{ do: 'follow', from: known, to: here }]
  if (there === known && !production.has(here)) return [{ do: 'rename', from: known, to: here }]
  return []
}

const adoption = (here: FolderName, there: FolderName): FolderStep[] =>
  here.uidValidity === there.uidValidity
    ? []
    : [{ do: 'adopt', path: here.path, uidValidity: there.uidValidity }]

/** Parents are renamed and made before their children; what is deleted makes room first. */
const RANK: Readonly<Record<FolderStep['do'], number>> = {
  forget: 0,
  follow: 1,
  rename: 2,
  remove: 3,
  create: 4,
  adopt: 5,
}

const nameOf = (step: FolderStep): string => ('from' in step ? step.from : step.path)

const inOrder = (steps: readonly FolderStep[]): FolderStep[] =>
  [...steps].sort((a, b) => RANK[a.do] - RANK[b.do] || (nameOf(a) < nameOf(b) ? -1 : 1))

const deepestFirst = <T extends { readonly path: string }>(list: readonly T[]): T[] =>
  [...list].sort((a, b) => (a.path > b.path ? -1 : 1))

function matched(
  snapshot: readonly FolderName[],
  appliance: readonly FolderName[],
  production: readonly FolderName[],
): Match[] {
  const [here, there] = [finder(snapshot, appliance), finder(snapshot, production)]
  return snapshot.map((folder) => ({
    snapshot: folder,
    appliance: here(folder),
    production: there(folder),
  }))
}

/** Finds a folder of the snapshot among the folders of one side: by name, else as the only one of its UIDVALIDITY. */
function finder(snapshot: readonly FolderName[], folders: readonly FolderName[]) {
  const byPath = new Map(folders.map((folder) => [folder.path, folder]))
  const under = (folder: FolderName): FolderName | undefined => {
    const found = byPath.get(folder.path)
    return found?.uidValidity === folder.uidValidity ? found : undefined
  }
  const taken = new Set(snapshot.map((folder) => under(folder)?.path))
  const byValidity = new Map<number, FolderName[]>()
  for (const folder of folders) {
    if (taken.has(folder.path)) continue
    byValidity.set(folder.uidValidity, [...(byValidity.get(folder.uidValidity) ?? []), folder])
  }
  const wanted = new Map<number, number>()
  for (const folder of snapshot)
    if (under(folder) === undefined)
      wanted.set(folder.uidValidity, (wanted.get(folder.uidValidity) ?? 0) + 1)
  return (folder: FolderName): FolderName | undefined => {
    const [moved, ...others] = byValidity.get(folder.uidValidity) ?? []
    const isOnly = others.length === 0 && wanted.get(folder.uidValidity) === 1
    return under(folder) ?? (isOnly ? moved : undefined)
  }
}
