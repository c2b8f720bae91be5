import { longestSilence, type Offender, type Verdict } from '../users/checker.ts'
import type { Chapter, Tale } from './tale.ts'

/** Something the product promises, and whether it was kept in this run. */
export type Pledge = {
  readonly text: string
  readonly kept: boolean
  /** What was counted. */
  readonly found: string
}

/** One row of what users saw. */
export type Sight = { readonly what: string; readonly values: readonly string[] }

/** What `--json` writes; the names are stable. */
export type Report = {
  readonly ok: boolean
  readonly states: readonly { readonly name: string; readonly atMs: number }[]
  readonly accounts: number
  readonly identical: boolean
  readonly lost: number
  readonly duplicated: number
  readonly resurrected: number
  readonly gapMs: Readonly<Record<'kill' | 'linkDown', number | null>>
  readonly failedConnects: number
  readonly reconnects: number
  readonly falseAuthFailures: number
  /** Why the run ended before its end; absent when it did not. */
  readonly broken?: string
  readonly pledges: readonly Pledge[]
  readonly offenders: Readonly<Record<string, readonly Offender[]>>
}

const OFFENDERS_SHOWN = 20
const SETTLE_MS = 3_000

/** The promises, judged. `equal` says for each comparison whether production and replica were identical. Pure. */
export function pledgesOf(verdict: Verdict, equal: readonly boolean[]): Pledge[] {
  const none = (text: string, offenders: readonly unknown[]): Pledge => ({
    text,
    kept: offenders.length === 0,
    found: String(offenders.length),
  })
  const count = (text: string, counted: number): Pledge => ({
    text,
    kept: counted === 0,
    found: String(counted),
  })
  return [
    none('no mail that was accepted got lost', verdict.lost),
    none('no mail was doubled', verdict.duplicated),
    none('nothing deleted came back', verdict.resurrected),
    none('everything filed is where it was filed', verdict.misplaced),
    none('every flag that was set is set', verdict.flagsLost),
    none('no mail was refused for good', verdict.refusedForGood),
    none('no folder changed its identity (UIDVALIDITY)', verdict.uidValidityChanges),
    count('no right password was called wrong', verdict.falseAuthFailures),
    count('nobody met a closed door', verdict.failedConnects),
    {
      text: 'users saw one certificate',
      kept: verdict.certificates.length === 1,
      found: String(verdict.certificates.length),
    },
    {
      text: 'afterwards both sides were identical, each time',
      kept: equal.length > 0 && equal.every(Boolean),
      found: `${equal.filter(Boolean).length} of ${equal.length}`,
    },
  ]
}

/** How long nobody was answered because of the failure. Pure. */
export const gapOf = (tale: Tale, chapter: Chapter): number =>
  Math.round(
    longestSilence(tale.records, { fromMs: chapter.faultMs, toMs: chapter.failoverMs + SETTLE_MS }),
  )

const giveBackGapOf = (tale: Tale, { healMs, backMs }: Chapter): number | undefined =>
  healMs === undefined || backMs === undefined
    ? undefined
    : longestSilence(tale.records, { fromMs: healMs, toMs: backMs + SETTLE_MS })

const seconds = (ms: number | undefined): string =>
  ms === undefined ? '–' : `${(ms / 1_000).toFixed(1)} s`

/** What users saw, a column a failure. Pure. */
export function sightsOf(tale: Tale): Sight[] {
  const row = (what: string, of: (chapter: Chapter) => string): Sight => ({
    what,
    values: tale.chapters.map(of),
  })
  const endOf = ({ backMs }: Chapter) => (backMs === undefined ? tale.endedMs : backMs + SETTLE_MS)
  const during = (chapter: Chapter) =>
    tale.records.filter(
      (record) =>
        'endedMs' in record && record.endedMs >= chapter.faultMs && record.endedMs < endOf(chapter),
    )
  const operations = (chapter: Chapter, outcome: 'ok' | 'unknown') =>
    during(chapter).filter((r) => r.kind === 'operation' && r.outcome === outcome).length
  const broken = (chapter: Chapter) =>
    tale.records.filter(
      (record) =>
        record.kind === 'lost' && record.atMs >= chapter.faultMs && record.atMs < endOf(chapter),
    ).length
  return [
    row('production was away for', (c) => seconds((c.healMs ?? tale.endedMs) - c.faultMs)),
    row('longest silence at the failure', (c) => seconds(gapOf(tale, c))),
    row('longest silence at the return', (c) => seconds(giveBackGapOf(tale, c))),
    row('connections nobody took', (c) =>
      String(
        during(c).filter(
          (r) => (r.kind === 'connect' || r.kind === 'asked') && r.outcome === 'not-connected',
        ).length,
      ),
    ),
    row('sessions that had to reconnect', (c) => String(broken(c))),
    row('things done meanwhile', (c) => String(operations(c, 'ok'))),
    row('answers that never came (tried again)', (c) => String(operations(c, 'unknown'))),
  ]
}

/** An offender that also tells what was done with it, when, and in which state. */
function dated(tale: Tale, { user, item, why, history = [] }: Offender): Offender {
  const events = history.map(({ atMs, what }) => {
    const state = tale.states.findLast((one) => one.atMs <= atMs)?.name ?? 'before the start'
    return `${((atMs - tale.startedMs) / 1_000).toFixed(1)} s, in ${state}: ${what}`
  })
  return { user, item, why: [why, ...events].join(' · ') }
}

/** The whole as data. Pure. */
export function reportOf(
  tale: Tale,
  verdict: Verdict,
  equal: readonly boolean[],
  broken: string | undefined,
): Report {
  const pledges = pledgesOf(verdict, equal)
  const gap = (fault: Chapter['fault']): number | null => {
    const chapter = tale.chapters.find((one) => one.fault === fault)
    return chapter === undefined ? null : gapOf(tale, chapter)
  }
  const { lost, duplicated, resurrected, misplaced, flagsLost, refusedForGood, notTaken } = verdict
  const all = { lost, duplicated, resurrected, misplaced, flagsLost, refusedForGood, notTaken }
  const offenders = Object.entries(all).map(([what, them]) => [
    what,
    them.slice(0, OFFENDERS_SHOWN).map((offender) => dated(tale, offender)),
  ])
  return {
    ok: broken === undefined && pledges.every(({ kept }) => kept),
    states: tale.states.map(({ name, atMs }) => ({
      name,
      atMs: Math.round(atMs - tale.startedMs),
    })),
    accounts: tale.users.length,
    identical: equal.length > 0 && equal.every(Boolean),
    lost: lost.length,
    duplicated: duplicated.length,
    resurrected: resurrected.length,
    gapMs: { kill: gap('kill'), linkDown: gap('link-down') },
    failedConnects: verdict.failedConnects,
    reconnects: verdict.reconnects,
    falseAuthFailures: verdict.falseAuthFailures,
    ...(broken === undefined ? {} : { broken }),
    pledges,
    offenders: Object.fromEntries(offenders),
  }
}
