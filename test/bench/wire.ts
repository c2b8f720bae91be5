import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { type Command, inNamespace, run } from '../../firmware/command.ts'
import type { Bed } from '../lab/bed/bed.ts'
import { startDaemon } from '../lab/bed/daemon.ts'
import { PORTS, PRODUCTION, USERS } from '../lab/bed/plan.ts'
import { NODE } from '../lab/bed/tools.ts'
import { agentOf, isAtRest, untilStatus, withBeds, workerPath } from './beds.ts'
import type { Bench, BenchContext } from './bench.ts'
import { median } from './rows.ts'

const RUNS = 3
const SECONDS = 4
const GRACE_MS = 10_000
const POLL_MS = 50
const ROUND_TRIPS = 3_000
const REST_MS_MAX = 90_000
/** The capture says every ten seconds what it lost. */
const LOST_MS = 11_000
const BUILD_MS = 90_000
const ROUND_MS = 60_000
const MEGA = 1e6

/** Who asks from this address is led from a protected port to the measuring server behind it. */
const MEASURER = USERS.ipv4[1]
const THROUGHPUT = { protected: PORTS.pop3s, server: 5_201 } as const
const ECHO = { protected: PORTS.imap, server: 5_202 } as const

const REDIRECT = `
table ip bench {
  chain in {
    type nat hook prerouting priority dstnat
    ip saddr ${MEASURER} tcp dport ${THROUGHPUT.protected} redirect to :${THROUGHPUT.server}
    ip saddr ${MEASURER} tcp dport ${ECHO.protected} redirect to :${ECHO.server}
  }
}
`

const DIRECTIONS = ['download', 'upload'] as const
type Direction = (typeof DIRECTIONS)[number]
type Pace = 'paced' | 'unpaced'

/** What goes through the appliance in transparent wait, its capture on, against a plain kernel bridge. */
export const wire: Bench = {
  name: 'wire',
  metrics: [
    { metric: 'wire.ratio', unit: 'of the bridge', target: { atLeast: 0.98 } },
    { metric: 'wire.uploadRatio', unit: 'of the bridge', target: { atLeast: 0.98 } },
    { metric: 'wire.pacedMbits', unit: 'Mbit/s' },
    { metric: 'wire.rttRatio', unit: 'of the bridge' },
    { metric: 'wire.rttUs', unit: 'µs' },
    { metric: 'wire.captureLost', unit: 'frames', target: { atMost: 0 } },
    { metric: 'wire.unpacedRatio', unit: 'of the bridge' },
    { metric: 'wire.unpacedMbits', unit: 'Mbit/s' },
    { metric: 'wire.unpacedCaptureLost', unit: 'frames' },
  ],
  limitMs: ({ runs }) => BUILD_MS + ROUND_MS * (runs ?? RUNS),
  measure: (context) =>
    withBeds(
      [
        { users: 2, messages: 20 },
        { users: 2, messages: 20, appliance: 'plain-bridge' },
      ],
      context.signal,
      async ([appliance, bridge]) => {
        if (appliance === undefined || bridge === undefined) return
        for (const bed of [appliance, bridge]) await prepare(bed)
        const { signal } = context
        const what = 'in transparent wait'
        await untilStatus(agentOf(appliance), isAtRest, { limitMs: REST_MS_MAX, signal, what })
        await compare(context, appliance, bridge)
      },
    ),
}

/** MSS-size packets as on a cable, and two servers behind protected ports. */
async function prepare(bed: Bed): Promise<void> {
  for (const role of ['users', 'production'] as const)
    await bed.inside(role, 'ip', ['link', 'set', 'dev', 'eth0', 'gso_max_size', '1514'])
  await bed.inside('production', 'nft', ['-f', '-'], REDIRECT)
  const production = bed.namespace('production')
  const log = (name: string) => ({ log: join(bed.record.directory, `${name}.log`) })
  await startDaemon(production, 'iperf3', ['-s', '-p', `${THROUGHPUT.server}`], log('iperf3'))
  await startDaemon(production, NODE, [workerPath('echo.ts'), `${ECHO.server}`], log('echo'))
  const deadline = performance.now() + GRACE_MS
  for (const { server } of [THROUGHPUT, ECHO])
    while ((await bed.inside('production', 'ss', ['-Hltn', `sport = :${server}`])) === '') {
      if (performance.now() > deadline) throw new Error(`nobody listens on port ${server}`)
      await delay(POLL_MS)
    }
}

async function compare(context: BenchContext, appliance: Bed, bridge: Bed): Promise<void> {
  const runs = context.options.runs ?? RUNS
  const rtt = { ours: [] as number[], peers: [] as number[] }
  for (let round = 0; round < runs; round += 1) {
    rtt.peers.push(await roundTripUs(bridge))
    rtt.ours.push(await roundTripUs(appliance))
  }
  context.say(`round trip ${rtt.ours.join(', ')} µs; bridge ${rtt.peers.join(', ')} µs`)
  const bridgeUs = { name: 'bridge', value: median(rtt.peers) }
  context.record('wire.rttUs', { values: rtt.ours, of: 'median', peer: bridgeUs })
  context.record('wire.rttRatio', { values: ratios(rtt.ours, rtt.peers), of: 'median' })

  const paced = await throughput(context, appliance, bridge, 'paced')
  const lost = await framesLost(appliance, context.signal)
  context.record('wire.captureLost', { values: [lost], of: 'max' })
  context.record('wire.ratio', { values: ratios(...paced.download), of: 'median' })
  context.record('wire.uploadRatio', { values: ratios(...paced.upload), of: 'median' })
  context.record('wire.pacedMbits', { values: paced.download[0], of: 'median', ...peer(paced) })

  const unpaced = await throughput(context, appliance, bridge, 'unpaced')
  const both = (await framesLost(appliance, context.signal)) - lost
  const note = 'every byte crosses the same cores as both ends: no figure of the appliance alone'
  context.record('wire.unpacedCaptureLost', { values: [both], of: 'max' })
  context.record('wire.unpacedRatio', { values: ratios(...unpaced.download), of: 'median', note })
  context.record('wire.unpacedMbits', {
    values: unpaced.download[0],
    of: 'median',
    ...peer(unpaced),
  })
}

/** For each direction: through the appliance, and through the bridge in the same round. */
type Throughput = Record<Direction, readonly [ours: number[], peers: number[]]>

const peer = ({ download: [, peers] }: Throughput) => ({
  peer: { name: 'bridge', value: median(peers) },
})

const ratios = (ours: readonly number[], peers: readonly number[]): number[] =>
  ours.map((value, round) => value / (peers[round] ?? Number.NaN))

async function throughput(
  { say, options, signal }: BenchContext,
  appliance: Bed,
  bridge: Bed,
  pace: Pace,
): Promise<Throughput> {
  const seen: Throughput = { download: [[], []], upload: [[], []] }
  for (let round = 0; round < (options.runs ?? RUNS); round += 1)
    for (const direction of DIRECTIONS) {
      signal.throwIfAborted()
      // Who goes first changes from round to round: a machine that slows down slows down both.
      const order = round % 2 === 0 ? [1, 0] : [0, 1]
      for (const side of order) {
        const bed = side === 0 ? appliance : bridge
        const rate = await megabits(bed, direction, pace)
        seen[direction][side === 0 ? 0 : 1].push(rate)
        say(
          `${pace} ${direction} ${side === 0 ? 'appliance' : 'bridge'}: ${rate.toFixed(0)} Mbit/s`,
        )
      }
    }
  return seen
}

/** What the receiver got, by iperf3 on one TCP connection. */
async function megabits(bed: Bed, direction: Direction, pace: Pace): Promise<number> {
  const args = ['-J', '-c', PRODUCTION.ipv4, '-p', `${THROUGHPUT.protected}`, '-B', MEASURER]
  const iperf: Command = {
    program: 'iperf3',
    args: [
      ...args,
      ...['-t', `${SECONDS}`, '-O', '1'],
      ...(direction === 'download' ? ['-R'] : []),
      ...(pace === 'paced' ? ['-b', '1G'] : []),
    ],
  }
  const timeoutMs = SECONDS * 1_000 + GRACE_MS
  const text = await run(inNamespace(bed.namespace('users'), iperf), { timeoutMs })
  const answer = JSON.parse(text) as { end: { sum_received: { bits_per_second: number } } }
  return answer.end.sum_received.bits_per_second / MEGA
}

/** The median round trip of a byte over one connection to a protected port. */
async function roundTripUs(bed: Bed): Promise<number> {
  const plan = { host: PRODUCTION.ipv4, port: ECHO.protected, from: MEASURER, times: ROUND_TRIPS }
  const worker = { program: NODE, args: [workerPath('round-trips.ts'), JSON.stringify(plan)] }
  const answer = await run(inNamespace(bed.namespace('users'), worker), { timeoutMs: GRACE_MS })
  return Number(answer)
}

/** Frames that the running capture has missed, as the agent reports them. */
async function framesLost(bed: Bed, signal: AbortSignal): Promise<number> {
  await delay(LOST_MS, undefined, { signal })
  const log = await readFile(join(bed.record.directory, 'appliance', 'agent.log'), 'utf8')
  const counts = [...log.matchAll(/"frames":(\d+)[^\n]*"event":"capture.frames-lost"/g)]
  return Math.max(0, ...counts.map(([, frames]) => Number(frames)))
}
