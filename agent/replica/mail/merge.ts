/** Flags of a message: sorted, without `\Recent`. */
export type Flags = readonly string[]
/** UID → flags. */
export type Messages = ReadonlyMap<number, Flags>

/** A folder as one server shows it at one moment. */
export type FolderView = {
  readonly uidNext: number
  /** `0n`: the server keeps none. */
  readonly highestModSeq: bigint
  readonly messages: Messages
}

/** What makes two messages the same one. */
export type Identity = {
  /** INTERNALDATE and every byte. */
  readonly exact: string
  /** Message-ID and body: the same letter, though it may have come by another way. Equal to `exact` without a Message-ID. */
  readonly letter: string
}
export type Identities = ReadonlyMap<number, Identity>

/**
 * The three states of one folder that a merge compares. `snapshot`: what both sides agreed on last; `production` is
 * without our own padding.
 */
export type Triple = {
  readonly snapshot: Messages
  readonly appliance: FolderView
  readonly production: FolderView
}

/** What flags alone cannot tell; gathered for the UIDs named by `doubts`. */
export type Facts = {
  readonly appliance: Identities
  readonly production: Identities
}

/** One thing to do, at production unless it says otherwise. All steps may be repeated without harm. */
export type Step =
  /** Give these messages of the appliance new UIDs there, above `above`: production has used theirs for something else. */
  | { readonly do: 'refile-here'; readonly uids: readonly number[]; readonly above: number }
  /** Append these messages of the appliance, each under its own UID. */
  | { readonly do: 'append'; readonly uids: readonly number[] }
  | {
      readonly do: 'store'
      readonly uids: readonly number[]
      readonly sign: '+' | '-'
      readonly flag: string
    }
  | { readonly do: 'expunge'; readonly uids: readonly number[]; readonly why: ExpungeReason }
  /** Use up UIDs until the next one is `uidNext`. */
  | { readonly do: 'raise-uidnext'; readonly uidNext: number }
  /** Copy these messages within the folder, to its tail. */
  | { readonly do: 'copy'; readonly uids: readonly number[] }
  | { readonly do: 'raise-modseq'; readonly modSeq: bigint }

/** `deleted`: on the appliance; `twin`: the appliance gave the same letter back; `refiled`: it was copied to the tail. */
export type ExpungeReason = 'deleted' | 'twin' | 'refiled'

/** How the UIDs of a folder relate. All lists ascend. */
export type Sorting = {
  /** On the appliance, not in the snapshot. */
  readonly arrived: readonly number[]
  /** Arrived, and production has the same message under the same UID. */
  readonly settled: readonly number[]
  /** Arrived, but production has used the UID otherwise. */
  readonly conflicts: readonly number[]
  /** Arrived, and the UID is still free at production. */
  readonly fresh: readonly number[]
  /** Production got them by itself. */
  readonly orphans: readonly number[]
}

/** UIDs are numbers of 32 bits (RFC 3501 §2.3.1.1), which sort fastest as such. */
export const ascending = (uids: Iterable<number>): number[] => [...Uint32Array.from(uids).sort()]

/** The UIDs of one folder that are not in another, ascending. */
const missingIn = (messages: Messages, others: Messages): number[] => {
  const missing: number[] = []
  for (const uid of messages.keys()) if (!others.has(uid)) missing.push(uid)
  return ascending(missing)
}

/** UIDs whose identity may decide something. */
export type Doubts = {
  readonly appliance: readonly number[]
  readonly production: readonly number[]
  /** Production has messages of its own on both sides of the appliance's UIDNEXT: some may be copies of others. */
  readonly straddling: boolean
}

/** Whom to compare: arrivals with what production has under their UIDs, and with what came to it by itself. */
export function doubts({ snapshot, appliance, production }: Triple, final: boolean): Doubts {
  const arrived = missingIn(appliance.messages, snapshot)
  const foreign = missingIn(production.messages, snapshot)
  const straddling =
    final &&
    (foreign.at(0) ?? Infinity) < appliance.uidNext &&
    (foreign.at(-1) ?? 0) >= appliance.uidNext
  if (arrived.length === 0 || foreign.length === 0)
    return { appliance: [], production: straddling ? foreign : [], straddling }
  return { appliance: arrived, production: foreign, straddling }
}

/** Sorts the UIDs of a folder by what is to become of them. */
export function sorted({ snapshot, appliance, production }: Triple, facts: Facts): Sorting {
  const arrived = missingIn(appliance.messages, snapshot)
  const same = (uid: number) => {
    const here = facts.appliance.get(uid)?.letter
    return here !== undefined && here === facts.production.get(uid)?.letter
  }
  const settled = arrived.filter((uid) => production.messages.has(uid) && same(uid))
  const isSettled = new Set(settled)
  const open = arrived.filter((uid) => !isSettled.has(uid))
  return {
    arrived,
    settled,
    conflicts: open.filter((uid) => uid < production.uidNext),
    fresh: open.filter((uid) => uid >= production.uidNext),
    orphans: missingIn(production.messages, snapshot).filter((uid) => !isSettled.has(uid)),
  }
}

/**
 * What is to be done, in this order, so that production holds everything that was acknowledged on the appliance and
 * keeps everything it got by itself. The rules, in words:
 * - a message of the appliance keeps its UID; if production has used it, the message is filed anew on the appliance
 *   first, under a UID that is free on both sides, and the plan ends there: read again and plan anew;
 * - of one letter (same Message-ID, same body) delivered on both sides the appliance's message stays, one for one;
 * - of flags only what changed on the appliance since the snapshot is applied; so are its expunges;
 * - what production expunged by itself stays expunged;
 * - in the last pass production's UIDNEXT and HIGHESTMODSEQ are raised to the appliance's, and messages that
 *   production got by itself below that UIDNEXT move to the tail: clients of the appliance look for news only there.
 */
export function steps(triple: Triple, facts: Facts, final: boolean): Step[] {
  const { snapshot, appliance, production } = triple
  const { arrived, settled, conflicts, fresh, orphans } = sorted(triple, facts)
  if (conflicts.length > 0) {
    const above = Math.max(appliance.uidNext, production.uidNext)
    return [{ do: 'refile-here', uids: conflicts, above }]
  }
  const twins = paired(orphans, facts.production, arrived, facts.appliance, 'letter')
  const isTwin = new Set(twins)
  const deleted = missingIn(snapshot, appliance.messages).filter((uid) =>
    production.messages.has(uid),
  )
  const list: Step[] = []
  if (fresh.length > 0) list.push({ do: 'append', uids: fresh })
  list.push(...expunge(twins, 'twin'))
  list.push(...flagSteps(triple, settled))
  list.push(...expunge(deleted, 'deleted'))
  if (final) {
    const rest = orphans.filter((uid) => !isTwin.has(uid))
    list.push(...tailSteps(triple, facts, rest))
  }
  const changed = list.length > 0 || production.highestModSeq < appliance.highestModSeq
  if (changed && production.highestModSeq > 0n)
    list.push({ do: 'raise-modseq', modSeq: appliance.highestModSeq })
  return list
}

/** Raises production's UIDNEXT and moves to the tail what lies below it and came without us. */
function tailSteps({ appliance, production }: Triple, facts: Facts, orphans: number[]): Step[] {
  const list: Step[] = []
  if (production.uidNext < appliance.uidNext)
    list.push({ do: 'raise-uidnext', uidNext: appliance.uidNext })
  const low = orphans.filter((uid) => uid < appliance.uidNext)
  const high = orphans.filter((uid) => uid >= appliance.uidNext)
  // Copied by a run that was cut off before it removed the originals.
  const copied = new Set(paired(low, facts.production, high, facts.production, 'exact'))
  const open = low.filter((uid) => !copied.has(uid))
  if (open.length > 0) list.push({ do: 'copy', uids: open })
  list.push(...expunge(low, 'refiled'))
  return list
}

/** Those of `uids` that have a partner of the same identity, one for one. */
export function paired(
  uids: readonly number[],
  identities: Identities,
  partners: readonly number[],
  partnerIdentities: Identities,
  by: keyof Identity,
): number[] {
  const free = new Map<string, number>()
  for (const uid of partners) {
    const key = partnerIdentities.get(uid)?.[by]
    if (key !== undefined) free.set(key, (free.get(key) ?? 0) + 1)
  }
  return uids.filter((uid) => {
    const key = identities.get(uid)?.[by]
    const left = key === undefined ? 0 : (free.get(key) ?? 0)
    if (key === undefined || left === 0) return false
    free.set(key, left - 1)
    return true
  })
}

const expunge = (uids: readonly number[], why: ExpungeReason): Step[] =>
  uids.length === 0 ? [] : [{ do: 'expunge', uids, why }]

/** Flags that changed on the appliance since the snapshot, gathered by flag. */
function flagSteps({ snapshot, appliance, production }: Triple, settled: readonly number[]) {
  const changes = new Map<string, number[]>()
  const change = (key: string, uid: number) => {
    const uids = changes.get(key)
    if (uids === undefined) changes.set(key, [uid])
    else uids.push(uid)
  }
  const isSettled = new Set(settled)
  for (const [uid, there] of production.messages) {
    const here = appliance.messages.get(uid)
    const base = isSettled.has(uid) ? there : snapshot.get(uid)
    if (here === undefined || base === undefined || here === base || sameFlags(here, base)) continue
    for (const flag of without(here, base)) if (!holds(there, flag)) change(`+${flag}`, uid)
    for (const flag of without(base, here)) if (holds(there, flag)) change(`-${flag}`, uid)
  }
  return [...changes].map(
    ([key, uids]): Step => ({
      do: 'store',
      uids: ascending(uids),
      sign: key.startsWith('+') ? '+' : '-',
      flag: key.slice(1),
    }),
  )
}

/** Flags are compared without regard to case (RFC 9051 §2.3.2). */
const holds = (flags: Flags, flag: string): boolean =>
  flags.includes(flag) || flags.some((other) => other.toLowerCase() === flag.toLowerCase())

const without = (flags: Flags, others: Flags): string[] =>
  flags.filter((flag) => !holds(others, flag))

/** Whether two messages bear the same flags. */
export const sameFlags = (a: Flags, b: Flags): boolean =>
  a.length === b.length && a.every((flag, n) => flag === b[n] || holds(b, flag))

/** How many items of the appliance production does not have yet: arrivals, changed flags, expunges. */
export function unboundOf(snapshot: Messages, appliance: Messages): number {
  let count = 0
  for (const [uid, flags] of appliance) {
    const base = snapshot.get(uid)
    if (base === undefined || !sameFlags(flags, base)) count += 1
  }
  for (const uid of snapshot.keys()) if (!appliance.has(uid)) count += 1
  return count
}

/** A UID set in IMAP's notation, split so that no command line grows beyond what servers take (RFC 7162 §4: 8192 octets). */
export function uidSets(uids: Iterable<number>, lengthMax = 4_000): string[] {
  const sets: string[] = []
  let set = ''
  for (const [first, last] of ranges(uids)) {
    const range = first === last ? String(first) : `${first}:${last}`
    if (set !== '' && set.length + range.length >= lengthMax) {
      sets.push(set)
      set = ''
    }
    set += set === '' ? range : `,${range}`
  }
  return set === '' ? sets : [...sets, set]
}

/** Runs of consecutive UIDs. */
export function ranges(uids: Iterable<number>): [first: number, last: number][] {
  const list: [number, number][] = []
  let run: [number, number] | undefined
  for (const uid of ascending(uids)) {
    if (run !== undefined && uid <= run[1] + 1) {
      run[1] = uid
    } else {
      run = [uid, uid]
      list.push(run)
    }
  }
  return list
}
