import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { Bed } from '../lab/bed/bed.ts'
import type { Fault } from '../lab/bed/faults.ts'
import { PRODUCTION } from '../lab/bed/plan.ts'
import { Asker } from './asker.ts'
import { agentOf, isAtRest, untilStatus, withBeds } from './beds.ts'
import type { Bench, BenchContext, BenchOptions } from './bench.ts'
import { monotonicMs } from './clock.ts'
import { KeepalivedPair } from './keepalived.ts'
import { type AskerPlan, count, type Login, outageOf, type Question } from './questions.ts'
import { type Metric, percentile } from './rows.ts'

const RUNS = 3
const PEER_RUNS_MAX = 5
const EVERY_MS = 20
const PATIENCE_MS = 6_000
const LOGIN_EVERY_MS = 150
const SETTLED_MS = 800
const AFTER_MS = 1_500
const FAILOVER_MS_MAX = 15_000
const REST_MS_MAX = 60_000
const RESTART_MS = 4_000
const HOLD_MS = 500
/** An answer that was on its way when the fault came is production's last. */
const BEFORE_FAULT_MS = 200
/** Building three beds. */
const BUILD_MS = 90_000
const ROUND_MS = 60_000

const POLICIES = ['aggressive', 'default'] as const
type Policy = (typeof POLICIES)[number]

/** Each fault, its word in a metric's name, and what is promised for each policy. */
const FAULTS = [
  { fault: 'link-down', word: 'linkDown', aggressive: 100, default: 800 },
  { fault: 'kill', word: 'kill', aggressive: 500, default: 2_000 },
  { fault: 'stop', word: 'stop', aggressive: 1_200, default: 2_400 },
  { fault: 'blackhole', word: 'blackhole', aggressive: 1_200, default: 2_400 },
] as const satisfies readonly { fault: Fault; word: string; aggressive: number; default: number }[]

const nameOf = (word: string, policy: Policy): string =>
  `failover.${word}${policy === 'default' ? 'Default' : ''}P95Ms`
const closedNameOf = (word: string, policy: Policy): string =>
  `failover.${word}${policy === 'default' ? 'Default' : ''}ClosedP95Ms`

/** The peer's intervals between two advertisements, in seconds. */
const PEERS = [
  { advertS: 1, word: 'keepalived' },
  { advertS: 0.1, word: 'keepalivedFast' },
] as const

const capital = (word: string): string => `${word.charAt(0).toUpperCase()}${word.slice(1)}`
const peerNameOf = (peer: string, word: string) =>
  `failover.${peer}${capital(word.replace(/P95Ms$/, ''))}P95Ms`

const METRICS: readonly Metric[] = [
  ...POLICIES.flatMap((policy) =>
    FAULTS.map((each) => ({
      metric: nameOf(each.word, policy),
      unit: 'ms',
      target: { atMost: each[policy] },
    })),
  ),
  { metric: 'failover.failedConnects', unit: 'connections', target: { atMost: 0 } },
  { metric: 'failover.lostConnects', unit: 'connections' },
  { metric: 'failover.restartFailovers', unit: 'failovers', target: { atMost: 0 } },
  { metric: 'failover.restartFailedConnects', unit: 'connections', target: { atMost: 0 } },
  { metric: 'failover.restartPauseMs', unit: 'ms' },
  ...POLICIES.flatMap((policy) =>
    FAULTS.map(({ word }) => ({ metric: closedNameOf(word, policy), unit: 'ms' })),
  ),
  { metric: 'failover.firstGreetingMs', unit: 'ms' },
  { metric: 'failover.firstLoginMs', unit: 'ms' },
  { metric: 'failover.laterLoginMs', unit: 'ms' },
  { metric: 'failover.firstSelectMs', unit: 'ms' },
  ...PEERS.flatMap((peer) =>
    FAULTS.map(({ word }) => ({ metric: peerNameOf(peer.word, word), unit: 'ms' })),
  ),
  { metric: 'failover.keepalivedFailedConnects', unit: 'connections' },
]

const runsOf = (options: BenchOptions) => options.runs ?? RUNS
const peerRunsOf = (options: BenchOptions) => Math.min(runsOf(options), PEER_RUNS_MAX)

/** From production's last good answer to our first, as a client sees it that opens a connection every 20 ms. */
export const failover: Bench = {
  name: 'failover',
  metrics: METRICS,
  limitMs: (options) =>
    2 * BUILD_MS + ROUND_MS * (2 * runsOf(options) + PEERS.length * peerRunsOf(options)),
  measure: async (context) => {
    const results = new Results()
    try {
      const { policy } = context.options
      if (policy !== 'default') await aggressive(context, results)
      if (policy !== 'aggressive') await byDefault(context, results)
    } finally {
      results.record(context)
    }
  },
}

/** Everything that was seen, by metric. */
class Results {
  readonly #values = new Map<string, number[]>()

  add(metric: string, ...values: readonly number[]): void {
    this.#values.set(metric, [...(this.#values.get(metric) ?? []), ...values])
  }

  record({ record }: BenchContext): void {
    for (const [metric, values] of this.#values) {
      const of = metric.endsWith('P95Ms') ? 'p95' : metric.endsWith('Ms') ? 'median' : 'sum'
      const fast = this.#values.get(peerNameOf('keepalivedFast', metric.split('.')[1] ?? ''))
      const peer =
        fast === undefined
          ? {}
          : { peer: { name: 'keepalived 0.1 s', value: percentile(fast, 0.95) } }
      record(metric, { values, of, ...peer })
    }
  }
}

const users = { users: 6, messages: 100, holdMs: HOLD_MS, giveBack: 'by-order' } as const

async function aggressive(context: BenchContext, results: Results): Promise<void> {
  const { signal, say, options } = context
  const plain = { appliance: 'plain-bridge', users: 1, messages: 10 } as const
  const beds = [{ ...users, policy: 'aggressive' } as const, plain, plain]
  await withBeds(beds, signal, async ([bed, ...others]) => {
    if (bed === undefined) return
    const pairs: { pair: KeepalivedPair; word: string }[] = []
    for (const [index, { advertS, word }] of PEERS.entries()) {
      const other = others[index]
      if (other !== undefined)
        pairs.push({ word, pair: await KeepalivedPair.start(other, advertS, signal) })
    }
    for (let run = 0; run < runsOf(options); run += 1)
      for (const { fault, word } of FAULTS) {
        await ours(context, bed, 'aggressive', { fault, word }, results)
        if (run >= peerRunsOf(options)) continue
        for (const peer of pairs) {
          const seen = await peer.pair.run(fault, { everyMs: EVERY_MS, patienceMs: PATIENCE_MS })
          say(`${peer.word} ${fault}: ${seen.outageMs.toFixed(0)} ms`)
          results.add(peerNameOf(peer.word, word), seen.outageMs)
          results.add('failover.keepalivedFailedConnects', seen.failedConnects)
        }
      }
  })
}

async function byDefault(context: BenchContext, results: Results): Promise<void> {
  await withBeds([{ ...users, policy: 'default' }], context.signal, async ([bed]) => {
    if (bed === undefined) return
    for (let run = 0; run < runsOf(context.options); run += 1) {
      for (const each of FAULTS) await ours(context, bed, 'default', each, results)
      await restart(context, bed, results)
    }
  })
}

type Inflicted = { readonly fault: Fault; readonly word: string }

/** One failover and the way back. */
async function ours(
  { signal, say }: BenchContext,
  bed: Bed,
  policy: Policy,
  { fault, word }: Inflicted,
  results: Results,
): Promise<void> {
  const asker = await asking(bed, signal)
  const faultMs = monotonicMs()
  await bed.fault(fault)
  await untilStatus(agentOf(bed), ({ state }) => state === 'failover', {
    limitMs: FAILOVER_MS_MAX,
    signal,
    what: 'standing in',
  })
  await delay(AFTER_MS, undefined, { signal })
  await untilAnswered(asker, monotonicMs() - AFTER_MS, signal)
  await asker.stop()
  const open = outageOf(asker.questions, 'open', faultMs - BEFORE_FAULT_MS)
  const closed = outageOf(asker.questions, 'closed', faultMs - BEFORE_FAULT_MS)
  if (open === undefined || closed === undefined) throw new Error(`${fault}: no answers at all`)
  say(`${policy} ${fault}: ${open.ms.toFixed(0)} ms (closed loop ${closed.ms.toFixed(0)} ms)`)
  results.add(nameOf(word, policy), open.ms)
  results.add(closedNameOf(word, policy), closed.ms)
  results.add('failover.failedConnects', failedConnects(asker.questions, say))
  const lost = count(asker.questions, 'lost')
  if (lost > 0) say(`connected, but never greeted: ${lost}`)
  results.add('failover.lostConnects', lost)
  for (const [metric, value] of wayIn(asker.logins, faultMs, open.firstMs))
    results.add(metric, value)
  await goBack(bed, signal)
}

/** Production's Dovecot is restarted by its administrator: nobody should notice more than a pause. */
async function restart({ signal, say }: BenchContext, bed: Bed, results: Results): Promise<void> {
  const before = await failoversOf(bed)
  const asker = await asking(bed, signal)
  const faultMs = monotonicMs()
  await bed.fault('restart')
  await delay(RESTART_MS, undefined, { signal })
  await asker.stop()
  const failovers = (await failoversOf(bed)) - before
  const pause = outageOf(asker.questions, 'open', faultMs - BEFORE_FAULT_MS)
  say(`restart: ${pause?.ms.toFixed(0)} ms, ${failovers} failovers`)
  results.add('failover.restartFailovers', failovers)
  results.add('failover.restartFailedConnects', failedConnects(asker.questions, say))
  if (pause !== undefined) results.add('failover.restartPauseMs', pause.ms)
  if (failovers > 0) await goBack(bed, signal)
}

/** Clients that have been asking for a while, at an appliance at rest. */
async function asking(bed: Bed, signal: AbortSignal): Promise<Asker> {
  await untilStatus(agentOf(bed), isAtRest, {
    limitMs: REST_MS_MAX,
    signal,
    what: 'in transparent wait with every service healthy',
  })
  const { accounts, ca } = bed.record
  const plan: AskerPlan = {
    host: PRODUCTION.ipv4,
    everyMs: EVERY_MS,
    patienceMs: PATIENCE_MS,
    logins: { everyMs: LOGIN_EVERY_MS, accounts, ca },
  }
  const asker = new Asker(bed, plan)
  while (asker.questions.length === 0) await delay(EVERY_MS, undefined, { signal })
  await delay(SETTLED_MS, undefined, { signal })
  return asker
}

/**
 * A question that production's kernel took, and nobody answers, holds up the closed loop for as long as its client is
 * patient: that is part of what such a client meets.
 */
async function untilAnswered(asker: Asker, sinceMs: number, signal: AbortSignal): Promise<void> {
  const deadline = monotonicMs() + PATIENCE_MS + AFTER_MS
  const answered = () =>
    asker.questions.some(
      ({ loop, outcome, endedMs }) =>
        loop === 'closed' && outcome === 'answered' && endedMs > sinceMs,
    )
  while (!answered() && monotonicMs() < deadline) await delay(EVERY_MS, undefined, { signal })
}

async function goBack(bed: Bed, signal: AbortSignal): Promise<void> {
  await bed.heal()
  const well = (services: readonly { verdict: string }[]) =>
    services.every(({ verdict }) => verdict === 'healthy')
  await untilStatus(agentOf(bed), ({ services }) => well(services), {
    limitMs: REST_MS_MAX,
    signal,
    what: 'sure of production again',
  })
  await bed.order('give-back')
  const what = 'back in transparent wait'
  await untilStatus(agentOf(bed), isAtRest, { limitMs: REST_MS_MAX, signal, what })
}

function failedConnects(questions: readonly Question[], say: (text: string) => void): number {
  const failed = questions.filter(({ outcome }) => outcome === 'not-connected')
  if (failed.length > 0) say(`failed connects: ${failed.map(({ because }) => because).join(', ')}`)
  return failed.length
}

/** How long each account's first way in took while we stood in, and later ones. */
function wayIn(
  logins: readonly Login[],
  faultMs: number,
  firstMs: number,
): readonly (readonly [string, number])[] {
  const seen = new Set<string>()
  return logins
    .filter(({ outcome, startedMs }) => outcome === 'answered' && startedMs > faultMs)
    .flatMap(({ user, endedMs, greetingMs, loginMs, selectMs }): (readonly [string, number])[] => {
      if (endedMs < firstMs || loginMs === undefined) return []
      const first = !seen.has(user)
      seen.add(user)
      if (!first) return [['failover.laterLoginMs', loginMs]]
      return [
        ['failover.firstGreetingMs', greetingMs ?? 0],
        ['failover.firstLoginMs', loginMs],
        ['failover.firstSelectMs', selectMs ?? 0],
      ]
    })
}

async function failoversOf(bed: Bed): Promise<number> {
  const log = await readFile(join(bed.record.directory, 'appliance', 'agent.log'), 'utf8')
  return log.split('"event":"failover.entered"').length - 1
}
