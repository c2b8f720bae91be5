import * as v from 'valibot'
import type { ServiceName } from '../config.ts'
import type { StateName } from '../continuity/machine.ts'

const list = <Item extends v.GenericSchema>(item: Item) => v.pipe(v.array(item), v.readonly())
const count = v.pipe(v.number(), v.integer(), v.minValue(0))
/** A span of time, not a date: the reader's clock and ours need not agree. */
const spanMs = v.pipe(v.number(), v.minValue(0))

const problem = v.object({
  what: v.string(),
  /** A setting, a file, a service: where a person has to look. */
  where: v.string(),
  todo: v.string(),
})

const STATES = [
  'unconfigured',
  'initialization',
  'transparent-wait',
  'failover',
  'prepare-to-failback',
  'failback',
] as const satisfies readonly StateName[]

/** The shape of a status, for whoever receives one from outside. Unknown keys of a newer agent are passed over. */
export const statusSchema = v.object({
  version: v.string(),
  state: v.picklist(STATES),
  /** How long the state has lasted. */
  sinceMs: spanMs,
  /** Why the state was entered, in words. */
  because: v.string(),
  posture: v.string(),
  accounts: v.object({
    total: count,
    /** Those whose replica equalled production at the end of a quiet pass. */
    complete: count,
    failing: list(v.object({ user: v.string(), error: v.string(), nextTryInMs: spanMs })),
  }),
  services: list(
    v.object({
      service: v.custom<ServiceName>((name) => typeof name === 'string'),
      verdict: v.picklist(['unknown', 'healthy', 'suspected', 'failed']),
      because: v.string(),
      sinceMs: spanMs,
    }),
  ),
  production: v.object({ mac: v.optional(v.string()), reachable: v.boolean() }),
  serving: v.object({
    /** Mails accepted and not yet delivered or handed over. */
    queued: count,
    /** Connections that the appliance answers itself. */
    liveFlows: count,
    /** Changes made while standing in that production has not got yet. */
    unbound: count,
  }),
  replication: v.object({
    /** How far behind production the replica may be; absent before the first check. */
    lagMs: v.optional(spanMs),
    /** Age of the last full comparison of every account. */
    lastSweepAgoMs: v.optional(spanMs),
  }),
  problems: list(problem),
  /** `accepted: false`: the file has been refused and the last good settings are in force. */
  settings: v.object({ path: v.string(), accepted: v.boolean() }),
})

/** What the appliance knows of itself: one shape for people, the operations centre and scripts. */
export type Status = v.InferOutput<typeof statusSchema>

/** Something a person can mend: what is wrong, where, and what to do. */
export type Problem = v.InferOutput<typeof problem>

/** One problem in one line. */
export const problemLine = ({ what, where, todo }: Problem): string => `${where}: ${what}. ${todo}.`
