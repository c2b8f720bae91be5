import type { Agent } from './agent.ts'
import type { Settings } from './config.ts'
import type { Problem, Status } from './console/status.ts'
import { postureOf, standsIn } from './continuity/machine.ts'
import type { Health, HealthStatus } from './health/health.ts'
import type { ReplicaStatus } from './replica/mail/replicator.ts'

/** What changes while the appliance runs, gathered now and then because asking costs something. */
export type Gathered = {
  readonly liveFlows: number
  readonly unbound: number
  readonly wire: readonly string[]
  /** What is left for mail, journal and ledger; `undefined`: not asked yet. */
  readonly freeBytes: number | undefined
}

export const nothingGathered: Gathered = {
  liveFlows: 0,
  unbound: 0,
  wire: [],
  freeBytes: undefined,
}

/** With less, one large mail may fill the disk. */
const FREE_BYTES_MIN = 64 * 1024 * 1024

/** Where a status comes from. */
export type Sources = {
  readonly version: string
  readonly agent: Pick<Agent, 'state' | 'entry'>
  readonly health: Pick<Health, 'status'>
  readonly replica: () => ReplicaStatus
  readonly mac: () => string | undefined
  readonly queued: () => number
  readonly gathered: () => Gathered
  /** The directory of mail, journal and ledger. */
  readonly state: string
  readonly settings: { readonly path: string; readonly accepted: boolean }
  readonly problems: () => readonly Problem[]
  readonly date: () => Date
}

/** The status at this moment. */
export function statusOf(sources: Sources): Status {
  const { agent, health, date } = sources
  const { state, entry } = agent
  const replica = sources.replica()
  const production = health.status()
  const gathered = sources.gathered()
  const copying = !replica.paused
  const lags = replica.accounts.flatMap(({ complete, lagMs }) =>
    complete && lagMs !== undefined ? [lagMs] : [],
  )
  const passes = replica.accounts.flatMap(({ lastPassAtMs }) => lastPassAtMs ?? [])
  return {
    version: sources.version,
    state: state.name,
    sinceMs: Math.max(0, date().getTime() - Date.parse(entry.at)),
    because: entry.because,
    posture: postureOf(state).name,
    accounts: {
      total: replica.total,
      complete: replica.complete,
      failing: replica.accounts.flatMap(({ user, complete, error, nextTryInMs }) =>
        error === undefined || (complete && !copying)
          ? []
          : [{ user, error, nextTryInMs: nextTryInMs ?? 0 }],
      ),
    },
    services: production.services.map(({ service, verdict, because, forMs }) => ({
      service,
      verdict,
      because,
      sinceMs: forMs,
    })),
    production: {
      ...(sources.mac() === undefined ? {} : { mac: sources.mac() }),
      reachable: production.services.some(({ verdict }) => verdict === 'healthy'),
    },
    serving: {
      queued: sources.queued(),
      liveFlows: standsIn(state) ? gathered.liveFlows : 0,
      unbound: gathered.unbound,
    },
    replication: {
      ...(lags.length === 0 ? {} : { lagMs: Math.max(...lags) }),
      ...(passes.length < replica.total || passes.length === 0
        ? {}
        : { lastSweepAgoMs: Math.max(0, date().getTime() - Math.min(...passes)) }),
    },
    problems: [
      ...sources.problems(),
      ...healthProblems(production),
      ...replicaProblems(replica),
      ...diskProblems(gathered, sources.state),
      ...gathered.wire.map((what) => ({
        what,
        where: 'the wire',
        todo: 'It is being put right; if it comes back, look for another program that changes it',
      })),
    ],
    settings: sources.settings,
  }
}

const diskProblems = ({ freeBytes }: Gathered, where: string): readonly Problem[] =>
  freeBytes === undefined || freeBytes >= FREE_BYTES_MIN
    ? []
    : [
        {
          what: `the disk is full: ${Math.floor(freeBytes / 1024 / 1024)} MB are free`,
          where,
          todo: 'Make room; what could not be written is tried again by itself',
        },
      ]

const healthProblems = ({ services }: HealthStatus): readonly Problem[] =>
  services.flatMap(({ service, problem }) =>
    problem === undefined
      ? []
      : [{ what: problem, where: service, todo: 'Check production and its settings' }],
  )

const replicaProblems = ({ lost, paused, accounts }: ReplicaStatus): readonly Problem[] => [
  ...(lost === undefined || paused
    ? []
    : [{ what: lost, where: 'replication', todo: 'Nothing, if production is down at present' }]),
  ...accounts.flatMap(({ user, notes }) =>
    notes.map((what) => ({ what, where: `account ${user}`, todo: 'Good to know; nothing to do' })),
  ),
]

/** What must be known before anything can start; shown when there are no settings at all. */
export function unconfiguredStatus(
  version: string,
  path: string,
  problems: readonly Problem[],
  sinceMs: number,
): Status {
  return {
    version,
    state: 'unconfigured',
    sinceMs,
    because: 'there are no settings that could be used',
    posture: 'wire',
    accounts: { total: 0, complete: 0, failing: [] },
    services: [],
    production: { reachable: false },
    serving: { queued: 0, liveFlows: 0, unbound: 0 },
    replication: {},
    problems: [...problems],
    settings: { path, accepted: false },
  }
}

/** The protected services' names, in the settings' order. */
export const essentialOf = (settings: Settings): ReadonlySet<string> =>
  new Set(
    settings.production.services
      .filter(({ essential }) => essential)
      .map(({ protocol, port }) => `${protocol}:${port}`),
  )
