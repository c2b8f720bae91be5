import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { build } from 'esbuild'
import { type AgentRecord, stopAgent } from '../lab/bed/appliance.ts'
import type { Bed } from '../lab/bed/bed.ts'
import { startDaemon } from '../lab/bed/daemon.ts'
import { writeRecord } from '../lab/bed/record.ts'
import { NODE, PROJECT } from '../lab/bed/tools.ts'
import { agentOf, isAtRest, untilStatus, withBeds } from './beds.ts'
import type { Bench, BenchContext } from './bench.ts'
import { memoryOf, workOf } from './processes.ts'

const USERS = 20
const MESSAGES = 100
const BUILD_MS = 180_000
const READY_MS_MAX = 120_000
const SETTLED_MS = 5_000
const IDLE_S = 30
const STANDING_MS = 8_000
const PERCENT = 100

const NOTE = `${USERS} accounts of ${MESSAGES} messages`

/** What the agent costs the device: memory in both of its long states, and the processor while nothing happens. */
export const memory: Bench = {
  name: 'memory',
  metrics: [
    { metric: 'memory.agentMiB', unit: 'MiB', target: { atMost: 120 } },
    { metric: 'memory.agentPssMiB', unit: 'MiB' },
    { metric: 'memory.agentFailoverMiB', unit: 'MiB', target: { atMost: 120 } },
    { metric: 'memory.agentFailoverPssMiB', unit: 'MiB' },
    { metric: 'memory.othersMiB', unit: 'MiB' },
    { metric: 'memory.agentSourceMiB', unit: 'MiB' },
    { metric: 'memory.idleCpuPercent', unit: '% of a core', target: { atMost: 2 } },
    { metric: 'memory.idleOthersCpuPercent', unit: '% of a core' },
  ],
  limitMs: () => 2 * BUILD_MS,
  measure: (context) =>
    withBeds(
      [{ users: USERS, messages: MESSAGES, giveBack: 'by-order' }],
      context.signal,
      async ([bed]) => {
        if (bed === undefined) return
        await untilReady(bed, context.signal)
        const source = await memoryOf(agentOf(bed).pid)
        const note = `run from its sources, types stripped by Node; ${NOTE}`
        const values = [source.residentMiB]
        context.record('memory.agentSourceMiB', { values, of: 'max', note })
        await runBundle(bed)
        await untilReady(bed, context.signal)
        await atRest(context, bed)
        await standingIn(context, bed)
      },
    ),
}

async function untilReady(bed: Bed, signal: AbortSignal): Promise<void> {
  const what = 'in transparent wait with every service healthy'
  await untilStatus(agentOf(bed), isAtRest, { limitMs: READY_MS_MAX, signal, what })
  await delay(SETTLED_MS, undefined, { signal })
}

/** What the device runs is one file. It starts over the same state, as after an update. */
async function runBundle(bed: Bed): Promise<void> {
  const { directory } = bed.record
  const bundle = join(directory, 'agent.mjs')
  await build({
    entryPoints: [join(PROJECT, 'agent', 'main.ts')],
    outfile: bundle,
    bundle: true,
    platform: 'node',
    format: 'esm',
    logLevel: 'error',
    // Packages in CommonJS ask for Node's own modules by `require`.
    banner: {
      js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url)",
    },
  })
  const before = agentOf(bed)
  await stopAgent(before)
  const environment = { UNDERSTUDY_SETTINGS: before.settings, UNDERSTUDY_STATE: before.state }
  const log = join(directory, 'appliance', 'agent.log')
  const pid = await startDaemon(bed.namespace('appliance'), NODE, [bundle], { log, environment })
  const appliance: AgentRecord = { ...before, pid }
  Object.assign(bed.record, { appliance })
  await writeRecord(bed.record)
}

async function atRest({ record, say, signal }: BenchContext, bed: Bed): Promise<void> {
  const { pid } = agentOf(bed)
  const before = await workOf(pid)
  await delay(IDLE_S * 1_000, undefined, { signal })
  const after = await workOf(pid)
  const percent = (from: number, to: number) => ((to - from) / IDLE_S) * PERCENT
  const [own, others] = [percent(before.ownS, after.ownS), percent(before.othersS, after.othersS)]
  const held = await memoryOf(pid)
  say(`at rest ${held.residentMiB.toFixed(1)} MiB, ${own.toFixed(1)} % of a core`)
  const note = `as one bundle; ${NOTE}`
  record('memory.agentMiB', { values: [held.residentMiB], of: 'max', note })
  record('memory.agentPssMiB', { values: [held.proportionalMiB], of: 'max' })
  const all = 'Dovecot, tcpdump, ip, nft and what they start'
  record('memory.othersMiB', { values: [held.othersMiB], of: 'max', note: all })
  record('memory.idleCpuPercent', { values: [own], of: 'max', note: `over ${IDLE_S} s` })
  record('memory.idleOthersCpuPercent', { values: [others], of: 'max', note: all })
}

async function standingIn({ record, signal }: BenchContext, bed: Bed): Promise<void> {
  await bed.fault('kill')
  const failedOver = { limitMs: READY_MS_MAX, signal, what: 'standing in' }
  await untilStatus(agentOf(bed), ({ state }) => state === 'failover', failedOver)
  await delay(STANDING_MS, undefined, { signal })
  const held = await memoryOf(agentOf(bed).pid)
  const note = `as one bundle, with its Node children; ${NOTE}`
  const resident = { values: [held.residentMiB], of: 'max', note } as const
  record('memory.agentFailoverMiB', resident)
  record('memory.agentFailoverPssMiB', { values: [held.proportionalMiB], of: 'max' })
}
