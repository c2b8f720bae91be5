import type { AccountDigest, Digest, MessageDigest } from '../digest.ts'
import type { Operation, UserRecord } from './records.ts'

/** An item that is not as somebody was promised. */
export type Offender = {
  readonly user: string
  readonly item: string
  readonly why: string
  /** Everything that was done with the item, in order of the answers: what a person needs to find the cause. */
  readonly history?: readonly { readonly atMs: number; readonly what: string }[]
}

export type Verdict = {
  /** Acknowledged, never deleted, and not there. */
  readonly lost: readonly Offender[]
  /** There more often than anybody's doing explains. */
  readonly duplicated: readonly Offender[]
  /** Deleted, acknowledged, and there again. */
  readonly resurrected: readonly Offender[]
  /** There, but not in the folder to which it was moved. */
  readonly misplaced: readonly Offender[]
  /** There, but without a flag that was set. */
  readonly flagsLost: readonly Offender[]
  /** Mail refused for good (5xx) although its recipients exist. */
  readonly refusedForGood: readonly Offender[]
  /** Each try to connect that nobody took. */
  readonly notTaken: readonly Offender[]
  readonly falseAuthFailures: number
  /** Tries to connect that nobody took: refused, unreachable, or silence. */
  readonly failedConnects: number
  /** Connections that broke after they were made, so that their users had to connect again. */
  readonly reconnects: number
  readonly certificates: readonly string[]
  /** Folders that showed a client more than one UIDVALIDITY. */
  readonly uidValidityChanges: readonly string[]
  readonly operations: { readonly ok: number; readonly fail: number; readonly unknown: number }
}

/** How often an item must and may be in an account at the end, and what else was promised of it. */
type Expectation = {
  least: number
  most: number
  deleted: boolean
  /** There were several from the start: nobody can tell which of them is meant. */
  ambiguous?: boolean
  folder?: string
  readonly flags: Set<string>
}

type Ledger = Map<string, Map<string, Expectation>>

/**
 * Compares what users were promised with what is there in the end. An acknowledged item exists exactly once unless its
 * user deleted it; after a lost answer both outcomes are right, and a message sent again after a lost answer may be
 * there twice: that double is the sender's own. Pure.
 */
export function check(records: readonly UserRecord[], before: Digest, after: Digest): Verdict {
  const ledger = openingLedger(before)
  const operations = records.filter((record) => record.kind === 'operation')
  for (const operation of operations.toSorted((a, b) => a.endedMs - b.endedMs))
    enter(ledger, operation)

  const found: Pick<
    Record<keyof Verdict, Offender[]>,
    'lost' | 'duplicated' | 'resurrected' | 'misplaced' | 'flagsLost'
  > = { lost: [], duplicated: [], resurrected: [], misplaced: [], flagsLost: [] }
  for (const [user, items] of ledger) {
    const present = presentIn(after[user])
    for (const [item, expected] of items) {
      const flaw = flawOf(expected, present.get(item) ?? [])
      if (flaw === undefined) continue
      const history = historyOf(operations, user, item)
      found[flaw.what].push({ user, item, why: flaw.why, history })
    }
  }
  return { ...found, ...experienceOf(records), ...operationsOf(operations) }
}

/** The name under which an item is known: its Message-ID, else its content. */
const itemOf = (message: MessageDigest): string => message.messageId ?? message.sha256

function openingLedger(before: Digest): Ledger {
  const ledger: Ledger = new Map()
  for (const [user, { folders }] of Object.entries(before)) {
    const items = new Map<string, Expectation>()
    for (const [folder, { messages }] of Object.entries(folders)) {
      for (const message of Object.values(messages)) {
        const item = itemOf(message)
        const known = items.get(item)
        if (known === undefined)
          items.set(item, { least: 1, most: 1, deleted: false, folder, flags: new Set() })
        else Object.assign(known, { least: known.least + 1, most: known.most + 1, ambiguous: true })
      }
    }
    ledger.set(user, items)
  }
  return ledger
}

function enter(ledger: Ledger, operation: Operation): void {
  const { item, verb, outcome, user, folder, flag } = operation
  if (item === undefined || outcome === 'fail') return
  const certain = outcome === 'ok' ? 1 : 0
  const receivers = verb === 'send' ? (operation.to ?? []) : [user]
  for (const receiver of receivers) {
    const expected = expectationOf(ledger, receiver, item)
    switch (verb) {
      case 'send':
      case 'append':
        expected.least += certain
        expected.most += 1
        break
      case 'delete':
        expected.least = Math.max(0, expected.least - 1)
        // Deleted once more after a failure that its first delete did not outlive: gone is gone.
        expected.most = Math.max(0, expected.most - certain)
        expected.deleted ||= outcome === 'ok'
        break
      case 'move':
        if (outcome === 'ok' && folder !== undefined) expected.folder = folder
        else {
          delete expected.folder
          // Cut off between its copy and its expunge, a MOVE leaves the message in both folders (RFC 6851 §3.3: messages
          // SHOULD be moved or unaffected; a server that is killed cannot keep to that).
          expected.most += 1
        }
        break
      case 'flag':
        if (outcome === 'ok' && flag !== undefined) expected.flags.add(flag)
        break
      case 'read':
      case 'pop3':
        break
    }
  }
}

function expectationOf(ledger: Ledger, user: string, item: string): Expectation {
  const items = ledger.get(user) ?? new Map<string, Expectation>()
  ledger.set(user, items)
  const expected = items.get(item) ?? { least: 0, most: 0, deleted: false, flags: new Set() }
  items.set(item, expected)
  return expected
}

type Present = { readonly folder: string; readonly flags: readonly string[] }

function presentIn(account: AccountDigest | undefined): Map<string, Present[]> {
  const present = new Map<string, Present[]>()
  for (const [folder, { messages }] of Object.entries(account?.folders ?? {})) {
    for (const message of Object.values(messages)) {
      const item = itemOf(message)
      present.set(item, [...(present.get(item) ?? []), { folder, flags: message.flags }])
    }
  }
  return present
}

type Flaw = {
  readonly what: 'lost' | 'duplicated' | 'resurrected' | 'misplaced' | 'flagsLost'
  readonly why: string
}

function flawOf(expected: Expectation, present: readonly Present[]): Flaw | undefined {
  const { least, most, deleted, ambiguous, folder, flags } = expected
  const count = present.length
  if (count < least) return { what: 'lost', why: `${count} of ${least}` }
  if (count > most) {
    const where = present.map((one) => one.folder).join(', ')
    return { what: deleted ? 'resurrected' : 'duplicated', why: `${count} of ${most}: ${where}` }
  }
  const [only, another] = present
  if (only === undefined || another !== undefined || most !== 1 || ambiguous) return undefined
  if (folder !== undefined && only.folder !== folder)
    return { what: 'misplaced', why: `in ${only.folder}, not in ${folder}` }
  const missing = [...flags].filter((flag) => !only.flags.includes(flag))
  return missing.length === 0 ? undefined : { what: 'flagsLost', why: missing.join(' ') }
}

const historyOf = (operations: readonly Operation[], user: string, item: string) =>
  operations
    .filter((one) => one.item === item && (one.user === user || one.to?.includes(user) === true))
    .toSorted((a, b) => a.endedMs - b.endedMs)
    .map(({ endedMs, user: by, verb, folder, flag, outcome, because = '' }) => ({
      atMs: endedMs,
      what: [by, verb, folder ?? flag ?? '', outcome, because].filter(Boolean).join(' '),
    }))

function operationsOf(operations: readonly Operation[]) {
  const count = (outcome: Operation['outcome']) =>
    operations.filter((operation) => operation.outcome === outcome).length
  const refusedForGood = operations.flatMap(({ verb, user, item = '', because = '' }) =>
    verb === 'send' && / 5\d\d /.test(` ${because} `) ? [{ user, item, why: because }] : [],
  )
  return {
    operations: { ok: count('ok'), fail: count('fail'), unknown: count('unknown') },
    refusedForGood,
  }
}

function notTakenOf(record: Extract<UserRecord, { kind: 'connect' | 'asked' }>): Offender {
  const { startedMs, endedMs, because = '' } = record
  const [user, item] =
    record.kind === 'connect' ? [record.user, record.service] : ['the asker', 'imap']
  const why = `${because} after ${Math.round(endedMs - startedMs)} ms`
  return { user, item, why, history: [{ atMs: startedMs, what: 'tried' }] }
}

function experienceOf(records: readonly UserRecord[]) {
  const certificates = new Set<string>()
  const uidValidities = new Map<string, Set<number>>()
  let [falseAuthFailures, failedConnects, reconnects] = [0, 0, 0]
  const notTaken: Offender[] = []
  for (const record of records) {
    if (record.kind === 'false-auth') falseAuthFailures += 1
    else if (record.kind === 'lost') reconnects += 1
    else if (record.kind === 'asked' || record.kind === 'connect') {
      if (record.outcome === 'not-connected') {
        failedConnects += 1
        notTaken.push(notTakenOf(record))
      }
      if (record.outcome === 'lost') reconnects += 1
      if (record.kind === 'connect' && record.certificate !== undefined)
        certificates.add(record.certificate)
    } else if (record.kind === 'uid-validity') {
      const name = `${record.user}/${record.folder}`
      uidValidities.set(name, (uidValidities.get(name) ?? new Set()).add(record.value))
    }
  }
  return {
    falseAuthFailures,
    failedConnects,
    notTaken,
    reconnects,
    certificates: [...certificates],
    uidValidityChanges: [...uidValidities].filter(([, seen]) => seen.size > 1).map(([it]) => it),
  }
}

/**
 * The longest time without an answer that overlaps the span: from one answered question of the open-loop client to the
 * next, or to the span's end.
 */
export function longestSilence(
  records: readonly UserRecord[],
  span: { readonly fromMs: number; readonly toMs: number },
): number {
  const answers = records
    .flatMap((record) =>
      record.kind === 'asked' && record.outcome === 'answered' ? [record.endedMs] : [],
    )
    .filter((atMs) => atMs < span.toMs)
    .sort((a, b) => a - b)
  const heardBefore = answers.some((atMs) => atMs <= span.fromMs)
  const moments = heardBefore ? answers : [span.fromMs, ...answers]
  let longest = 0
  for (const [index, atMs] of moments.entries()) {
    const next = moments[index + 1] ?? span.toMs
    if (next >= span.fromMs) longest = Math.max(longest, next - atMs)
  }
  return longest
}
