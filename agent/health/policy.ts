import type { ServiceName, Settings } from '../config.ts'

export type PolicyName = Settings['judgement']['policy']

/** How patient the appliance is, in milliseconds. */
export type Policy = {
  /** Failed when production's link has been lost for so long. */
  readonly linkMs: number
  /** Failed when new connections have been refused for so long. */
  readonly refusedMs: number
  /** Failed when nothing has been heard for so long after the first question that got no answer. */
  readonly silentMs: number
  /** A question unanswered for so long raises suspicion. */
  readonly noticeMs: number
  /** Interval of fresh probes while a service is suspected. */
  readonly probeMs: number
}

/** The slider. Moving towards `lax` never makes a verdict come earlier: each row is at least the row above. */
export const POLICIES: Readonly<Record<PolicyName, Policy>> = {
  aggressive: { linkMs: 0, refusedMs: 200, silentMs: 1_000, noticeMs: 60, probeMs: 100 },
  default: { linkMs: 500, refusedMs: 1_500, silentMs: 2_000, noticeMs: 200, probeMs: 250 },
  lax: { linkMs: 5_000, refusedMs: 15_000, silentMs: 30_000, noticeMs: 1_000, probeMs: 1_000 },
}

/** A policy, and what counts for the way back. */
export type Terms = Policy & {
  /** How long production must answer without a break before it is trusted again. */
  readonly holdMs: number
  /** The services that must be back before everything is given back. */
  readonly essential: readonly ServiceName[]
}
