import type { Baseline, Side } from './backsync-sides.ts'
import { STRANGER_MESSAGES_MIN, Stranger } from './backsync-sides.ts'
import {
  ascending,
  doubts,
  type Facts,
  type FolderView,
  type Messages,
  type Triple,
} from './merge.ts'

type Sides = { readonly appliance: Side; readonly production: Side }

/** The UIDs that tell whether production was set back and gave out UIDs twice: the youngest ones. */
const PROBED_UIDS = 16

/** Reads what a merge must know beyond flags: bodies only where a UID or a Message-ID is on both sides. */
export async function factsFor(sides: Sides, triple: Triple, final: boolean): Promise<Facts> {
  const { appliance, production, straddling } = doubts(triple, final)
  const [hereIds, thereIds] = await Promise.all([
    sides.appliance.messageIds(appliance),
    sides.production.messageIds(production),
  ])
  const [knownHere, knownThere] = [new Set(hereIds.values()), new Set(thereIds.values())]
  const isDoubtful = (
    uid: number,
    others: ReadonlyMap<number, string>,
    id?: string,
    known?: Set<string>,
  ) => others.has(uid) || (id !== undefined && known?.has(id) === true)
  const [here, there] = await Promise.all([
    sides.appliance.identities(
      appliance.filter((uid) => isDoubtful(uid, thereIds, hereIds.get(uid), knownThere)),
    ),
    sides.production.identities(
      production.filter(
        (uid) => straddling || isDoubtful(uid, hereIds, thereIds.get(uid), knownHere),
      ),
    ),
  ])
  return { appliance: here, production: there }
}

/**
 * The baseline as far as production still means the same by it. A production that was set back to an earlier state
 * has forgotten the youngest messages and may have given their UIDs to others: those are no common ground any more,
 * durably, before the first write makes them look expunged. @throws {Stranger}
 */
export async function trusted(
  sides: Sides,
  path: string,
  baseline: Baseline,
  { appliance, production }: { appliance: FolderView; production: FolderView },
): Promise<Messages> {
  const snapshot = baseline.messages()
  const last = baseline.production()
  const isSetBack =
    production.uidNext < last.uidNext || production.highestModSeq < last.highestModSeq
  const common = ascending(
    [...snapshot.keys()].filter(
      (uid) => appliance.messages.has(uid) && production.messages.has(uid),
    ),
  )
  const probed = await mismatched(sides, common.slice(-PROBED_UIDS))
  const reused = probed.length === 0 ? [] : await mismatched(sides, common)
  if (reused.length * 2 > common.length && common.length >= STRANGER_MESSAGES_MIN)
    throw new Stranger(`${path}: ${reused.length} of ${common.length} UIDs mean other mail`)
  const [firstReused = Number.POSITIVE_INFINITY] = reused
  const lastCommon = common.filter((uid) => uid < firstReused).at(-1) ?? 0
  // Above the last message that both still have nobody can tell what production means by a UID of the snapshot.
  const cut = Math.min(firstReused, isSetBack ? lastCommon + 1 : production.uidNext)
  const gone = new Set([...snapshot.keys()].filter((uid) => uid >= cut))
  if (gone.size === 0) return snapshot
  baseline.settle(new Map(), gone)
  return baseline.messages()
}

/** UIDs that mean different messages on both sides: the stamp raises the suspicion, the content decides. */
async function mismatched(sides: Sides, uids: readonly number[]): Promise<readonly number[]> {
  if (uids.length === 0) return []
  const [here, there] = await Promise.all([
    sides.appliance.stamps(uids),
    sides.production.stamps(uids),
  ])
  const suspects = uids.filter(
    (uid) => here.has(uid) && there.has(uid) && here.get(uid) !== there.get(uid),
  )
  if (suspects.length === 0) return []
  const [mine, theirs] = await Promise.all([
    sides.appliance.identities(suspects),
    sides.production.identities(suspects),
  ])
  return suspects.filter((uid) => {
    const [a, b] = [mine.get(uid), theirs.get(uid)]
    return a !== undefined && b !== undefined && a.letter !== b.letter
  })
}
