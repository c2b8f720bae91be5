import type { ServiceName } from '../config.ts'
import type { Evidence } from './evidence.ts'
import type { Terms } from './policy.ts'

type About = Extract<Evidence, { readonly service: ServiceName }>

/** `unknown`: has never answered, and is therefore never called failed. */
export type Verdict = 'unknown' | 'healthy' | 'suspected' | 'failed'

/** A negative finding; only a fresh probe of our own confirms it. */
type Doubt = { readonly sinceMs: number; readonly lastMs: number; readonly confirmed: boolean }

/** What is thought of one service, and the evidence that is still open. */
export type Standing = {
  readonly verdict: Verdict
  readonly sinceMs: number
  readonly because: string
  readonly refused: Doubt | undefined
  readonly silent: Doubt | undefined
  /** First negative finding since a fresh connection was last answered. */
  readonly doubtedSinceMs: number | undefined
  /** First fresh probe in vain since then, and whether our warm session was served after it. */
  readonly unservedSinceMs: number | undefined
  readonly sessionServed: boolean
  readonly lifeMs: number
  readonly answeredMs: number | undefined
  /** Begin of an unbroken row of sound answers. */
  readonly soundSinceMs: number | undefined
}

export type Judgement = {
  readonly linkLostMs: number | undefined
  readonly standingInSinceMs: number | undefined
  readonly services: Readonly<Partial<Record<ServiceName, Standing>>>
}

/**
 * A service whose old sessions live but which serves nobody new is failed after so many times the patience for
 * silence: it may be overloaded, so it gets longer, but not for ever.
 */
const UNSERVED_PATIENCE = 5

/**
 * Refusals that have not been repeated for so many probe intervals may be over: packets of the next probes may have
 * been lost. Then the patience for silence counts.
 */
const REFUSAL_PROBES = 1.5

/** A doubt that lasts so long breaks the row of sound answers; a lost SYN and its next probe are shorter. */
const BREAK_MS = 2_000

/** The row of sound answers is alive only while it is being added to. */
const STALE_MS = 5_000

const INNOCENT = {
  refused: undefined,
  silent: undefined,
  doubtedSinceMs: undefined,
  unservedSinceMs: undefined,
  sessionServed: false,
} as const

const stranger: Standing = {
  ...INNOCENT,
  verdict: 'unknown',
  sinceMs: 0,
  because: 'has not answered yet',
  lifeMs: Number.NEGATIVE_INFINITY,
  answeredMs: undefined,
  soundSinceMs: undefined,
}

const acquaintance: Standing = {
  ...stranger,
  verdict: 'healthy',
  because: 'answered before the last restart',
}

/** What is thought before anything was seen: well of those services that have answered in an earlier life. */
export const unprejudiced = (
  services: readonly ServiceName[],
  known: readonly ServiceName[] = [],
): Judgement => ({
  linkLostMs: undefined,
  standingInSinceMs: undefined,
  services: Object.fromEntries(
    services.map((service) => [service, known.includes(service) ? acquaintance : stranger]),
  ),
})

/** The judgement after one more piece of evidence. Pure: time stands in the evidence. */
export function judge(before: Judgement, evidence: Evidence, terms: Terms): Judgement {
  const around = weighSurroundings(before, evidence)
  const services = { ...around.services }
  for (const service of names(services)) {
    const standing = services[service] ?? stranger
    const concerned = 'service' in evidence && evidence.service === service
    const weighed = concerned ? weigh(standing, evidence, around.linkLostMs) : standing
    services[service] = settle(weighed, evidence, around, terms)
  }
  return { ...around, services }
}

/** When the judgement changes by the passing of time alone: a `time` evidence is due then. */
export function dueMs(judgement: Judgement, terms: Terms): number {
  const dues = names(judgement.services).map((service) => {
    const standing = judgement.services[service] ?? stranger
    return standing.verdict === 'suspected' ? charge(standing, judgement, terms).dueMs : NEVER
  })
  return Math.min(NEVER, ...dues)
}

/** Since when all essential services have answered soundly without a break; `undefined` when they do not. */
export function soundSinceMs(
  judgement: Judgement,
  essential: readonly ServiceName[],
  nowMs: number,
): number | undefined {
  if (judgement.linkLostMs !== undefined) return undefined
  let sinceMs = judgement.standingInSinceMs ?? Number.NEGATIVE_INFINITY
  for (const service of essential) {
    const {
      soundSinceMs: own,
      answeredMs,
      doubtedSinceMs,
    } = judgement.services[service] ?? stranger
    if (own === undefined || doubtedSinceMs !== undefined) return undefined
    if (answeredMs === undefined || nowMs - answeredMs > STALE_MS) return undefined
    sinceMs = Math.max(sinceMs, own)
  }
  return sinceMs
}

/** Whether production has earned its users back (only asked while we stand in). */
export function hasReturned(judgement: Judgement, terms: Terms, nowMs: number): boolean {
  const sinceMs = soundSinceMs(judgement, terms.essential, nowMs)
  return (
    judgement.standingInSinceMs !== undefined &&
    terms.essential.length > 0 &&
    sinceMs !== undefined &&
    nowMs - sinceMs >= terms.holdMs
  )
}

const NEVER = Number.POSITIVE_INFINITY

const names = (services: Judgement['services']): ServiceName[] =>
  Object.keys(services) as ServiceName[]

function weighSurroundings(before: Judgement, evidence: Evidence): Judgement {
  switch (evidence.kind) {
    case 'carrier':
      if (evidence.up) return { ...before, linkLostMs: undefined }
      return { ...before, linkLostMs: before.linkLostMs ?? evidence.atMs }
    case 'answered': {
      const lost = before.linkLostMs
      // Whoever was asked after the loss and answers is reachable, whatever the interface reports.
      return lost !== undefined && evidence.askedMs > lost
        ? { ...before, linkLostMs: undefined }
        : before
    }
    case 'standing-in':
      return {
        ...before,
        standingInSinceMs: evidence.on ? (before.standingInSinceMs ?? evidence.atMs) : undefined,
      }
    default:
      return before
  }
}

/** Adds evidence to a service's record. No policy has a say here: how patient we are changes no fact. */
function weigh(standing: Standing, evidence: About, linkLostMs: number | undefined): Standing {
  const { atMs } = evidence
  switch (evidence.kind) {
    case 'answered':
      return linkLostMs === undefined ? answered(standing, evidence.sound, atMs) : standing
    case 'accepted':
      return accepted(standing)
    case 'alive':
      return alive(standing, evidence.by, atMs)
    case 'refused': {
      const refused = worse(standing.refused, atMs, evidence.by === 'probe')
      return doubted({ ...standing, refused, soundSinceMs: undefined }, evidence.by, atMs)
    }
    case 'silent': {
      // A question older than the last sign of life was only slow.
      if (evidence.sinceMs <= standing.lifeMs) return standing
      const silent = worse(standing.silent, evidence.sinceMs, evidence.by === 'probe')
      return doubted({ ...standing, silent }, evidence.by, evidence.sinceMs)
    }
    case 'lost':
      return doubted({ ...standing, soundSinceMs: undefined }, 'session', atMs)
    case 'unable':
      return { ...standing, ...INNOCENT, soundSinceMs: undefined }
  }
}

const worse = (doubt: Doubt | undefined, sinceMs: number, confirmed: boolean): Doubt => ({
  sinceMs: Math.min(doubt?.sinceMs ?? NEVER, sinceMs),
  lastMs: Math.max(doubt?.lastMs ?? sinceMs, sinceMs),
  confirmed: confirmed || (doubt?.confirmed ?? false),
})

const doubted = (
  standing: Standing,
  by: 'probe' | 'session' | 'users',
  sinceMs: number,
): Standing => ({
  ...standing,
  doubtedSinceMs: Math.min(standing.doubtedSinceMs ?? NEVER, sinceMs),
  unservedSinceMs: standing.unservedSinceMs ?? (by === 'probe' ? sinceMs : undefined),
})

function answered(standing: Standing, sound: boolean, atMs: number): Standing {
  const broken = standing.doubtedSinceMs !== undefined && atMs - standing.doubtedSinceMs >= BREAK_MS
  const row = broken ? atMs : (standing.soundSinceMs ?? atMs)
  return {
    ...standing,
    ...INNOCENT,
    lifeMs: Math.max(standing.lifeMs, atMs),
    answeredMs: atMs,
    soundSinceMs: sound ? row : undefined,
  }
}

/** The port is open again, but the service has not spoken since it was refused: the charge becomes silence. */
function accepted(standing: Standing): Standing {
  if (standing.refused === undefined) return standing
  const { sinceMs, confirmed } = standing.refused
  return { ...standing, refused: undefined, silent: worse(standing.silent, sinceMs, confirmed) }
}

function alive(standing: Standing, by: 'session' | 'users', atMs: number): Standing {
  const older = (doubt: Doubt | undefined) => doubt !== undefined && doubt.sinceMs <= atMs
  const served =
    by === 'session' && standing.unservedSinceMs !== undefined && standing.unservedSinceMs <= atMs
  // Users' sessions that go on while we are refused may mean that only we are: unless our own old session goes on
  // too, which shows that production talks to us and that its port is closed indeed.
  const acquitted = by === 'users' && !standing.sessionServed && older(standing.refused)
  return {
    ...standing,
    lifeMs: Math.max(standing.lifeMs, atMs),
    silent: older(standing.silent) ? undefined : standing.silent,
    refused: acquitted ? undefined : standing.refused,
    sessionServed: standing.sessionServed || served,
  }
}

type Charge = { readonly dueMs: number; readonly because: string }

/** The gravest open charge: the one that leads to a verdict first. */
function charge(standing: Standing, { linkLostMs }: Judgement, terms: Terms): Charge {
  const { refused, silent, unservedSinceMs, sessionServed } = standing
  let gravest: Charge = { dueMs: NEVER, because: 'a connection was ended by production' }
  const weighIn = (because: string, sinceMs: number | undefined, ms: number, valid: boolean) => {
    if (sinceMs === undefined) return
    const due = valid ? sinceMs + ms : NEVER
    if (due < gravest.dueMs || (gravest.dueMs === NEVER && due === NEVER))
      gravest = { dueMs: due, because }
  }
  weighIn(
    'nobody new is served, old sessions go on',
    unservedSinceMs,
    terms.silentMs * UNSERVED_PATIENCE,
    sessionServed,
  )
  weighIn('no answer', silent?.sinceMs, terms.silentMs, silent?.confirmed ?? false)
  const patienceMs = refused === undefined ? NEVER : refusalMs(refused, terms)
  weighIn('connections are refused', refused?.sinceMs, patienceMs, refused?.confirmed ?? false)
  weighIn("production's link is lost", linkLostMs, terms.linkMs, true)
  return gravest
}

const refusalMs = ({ sinceMs, lastMs }: Doubt, terms: Terms): number =>
  lastMs - sinceMs >= terms.refusedMs - terms.probeMs * REFUSAL_PROBES
    ? terms.refusedMs
    : terms.silentMs

/** Turns a record into a verdict. */
function settle(weighed: Standing, evidence: Evidence, around: Judgement, terms: Terms): Standing {
  const { linkLostMs } = around
  const lost = linkLostMs !== undefined
  const standing = lost ? cutOff(weighed, linkLostMs) : weighed
  const { atMs } = evidence
  if (standing.verdict === 'unknown' || standing.verdict === 'failed') {
    if (!trusted(standing, around, terms, atMs) || lost) return standing
    return pronounced(standing, 'healthy', 'answers', atMs)
  }
  if (standing.doubtedSinceMs === undefined && !lost)
    return pronounced(standing, 'healthy', 'answers', atMs)
  const { dueMs, because } = charge(standing, around, terms)
  return pronounced(standing, dueMs <= atMs ? 'failed' : 'suspected', because, atMs)
}

/** A link that is back proves nothing yet: the doubt stays until a fresh probe is answered. */
const cutOff = (standing: Standing, linkLostMs: number): Standing => ({
  ...standing,
  doubtedSinceMs: Math.min(standing.doubtedSinceMs ?? NEVER, linkLostMs),
  soundSinceMs: undefined,
})

const pronounced = (
  standing: Standing,
  verdict: Verdict,
  because: string,
  atMs: number,
): Standing =>
  standing.verdict === verdict
    ? { ...standing, because }
    : { ...standing, verdict, because, sinceMs: atMs }

/** One answer acquits, but while we stand in nobody needs production at once: then it must last. */
function trusted(standing: Standing, around: Judgement, terms: Terms, atMs: number): boolean {
  const { answeredMs, doubtedSinceMs, soundSinceMs: row, verdict, sinceMs } = standing
  if (doubtedSinceMs !== undefined || answeredMs === undefined) return false
  const standingInSinceMs = around.standingInSinceMs
  if (standingInSinceMs === undefined) return verdict === 'unknown' || answeredMs >= sinceMs
  return row !== undefined && atMs - Math.max(row, standingInSinceMs) >= terms.holdMs
}
