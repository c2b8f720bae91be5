import type { Doveadm, DoveadmCommand } from './doveadm.ts'
import type { Ledger } from './ledger.ts'
import type { FolderStatus } from './plan.ts'
import { type LookOptions, lookCommands, replicaLookOf } from './reading.ts'
import { settle } from './settle.ts'

/** UIDs that production may have given out before it failed, without the replica knowing. */
const UIDS_LEAST = 64
const UIDS_MOST = 1_024
/** A folder that has seen a hundred thousand messages gets them faster than one that has seen a hundred. */
const UIDS_PER_SEEN = 1 / 512
/** Changes that production may have made before it failed, without the replica knowing. */
const MODSEQS = 256n

const LOOK: LookOptions = { special: [], rows: false }

/** How many UIDs are left to production in a folder whose next UID this is. */
export const gapFor = (uidNext: number): number =>
  Math.min(UIDS_MOST, UIDS_LEAST + Math.floor(uidNext * UIDS_PER_SEEN))

/**
 * Prepares an account for its first answer while the appliance stands in. The ledger is brought up to date from the
 * replica and becomes the snapshot; then the replica's UIDNEXT and HIGHESTMODSEQ rise above whatever production may
 * have told its clients, so that a UID never means two messages. Durable; does nothing when it was done before.
 * Nobody may write to the replica of this account before this is over.
 * @throws {PeerUnreachable} {DoveadmRefused} {LedgerDamaged}
 */
export async function makeGap(
  { doveadm, ledger }: { doveadm: Doveadm; ledger: Ledger },
  user: string,
): Promise<void> {
  if (ledger.account(user).gap === 'made') return
  const { replica } = await settle({ doveadm, ledger }, user)
  const known = new Map(ledger.folders(user).map((folder) => [folder.path, folder]))
  const commands = replica.map((folder): DoveadmCommand => {
    const then = known.get(folder.path)
    const uidNext = Math.max(folder.uidNext, then?.productionUidNext ?? 0)
    const modSeq = [folder.highestModSeq, then?.productionModSeq ?? 0n].reduce((a, b) =>
      a > b ? a : b,
    )
    return [
      'mailboxUpdate',
      {
        user,
        mailbox: folder.path,
        minNextUid: String(uidNext + gapFor(uidNext)),
        minHighestModseq: String(modSeq + MODSEQS),
      },
    ]
  })
  // A user waits for this: every request costs the start of a process.
  const results = await doveadm.batch([...commands, ...lookCommands(user, LOOK)])
  const { folders } = replicaLookOf(results.slice(commands.length), LOOK)
  const after = new Map(folders.map((folder) => [folder.path, folder]))
  ledger.recordStates(
    user,
    ledger.folders(user).map((state) => ({ ...state, ...positionOf(after.get(state.path)) })),
  )
  ledger.record(user, { gap: 'made' })
}

const positionOf = (folder: FolderStatus | undefined) =>
  folder === undefined ? {} : { uidNext: folder.uidNext, highestModSeq: folder.highestModSeq }
