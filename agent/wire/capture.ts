import type { ChildProcess } from 'node:child_process'
import { startChild } from '../../firmware/child.ts'
import type { Log } from '../../firmware/log.ts'
import type { ServiceName, Settings } from '../config.ts'
import { captureFilter } from './capture-filter.ts'
import { type TcpFrame, tcpFrameOf } from './frame.ts'
import { keepRunning } from './keep.ts'
import { PcapReader } from './pcap.ts'
import { planFor } from './plan.ts'

/** One TCP segment of a protected service, as it passed production's end of the appliance. */
export type Segment = {
  /** On the monotonic clock, when it was read. */
  readonly atMs: number
  readonly service: ServiceName
  readonly from: 'users' | 'production'
  /** The user's address and port: `10.77.0.20:40123`, `fd77::20:40123`. */
  readonly client: string
  /** Production's address and port, in the same form. */
  readonly server: string
  readonly syn: boolean
  readonly ack: boolean
  readonly rst: boolean
  readonly fin: boolean
  readonly seq: number
  /** The captured part of the payload. It shares memory with other segments: who keeps it copies it. */
  readonly payload: Buffer
  readonly payloadBytes: number
  /** The whole Ethernet frame of a user's SYN, so that it can be sent again. */
  readonly frame?: Buffer
}

const SNAPSHOT_BYTES = 512
/** The kernel's ring: what piles up there while this process is busy is not lost. */
const RING_KIB = 16_384
const LOST_EVERY_MS = 10_000

type Parts = {
  readonly settings: Settings
  readonly log: Log
  /** Told, every ten seconds, how many frames the running capture has missed because we were slow. */
  readonly lost?: (frames: number) => void
}

/**
 * Watches protected services where production is cabled: what it says is seen before any rule drops it. Segments
 * without flags and payload are left out. Forwarding never waits for us; what we are too slow for is counted.
 * Runs until the signal aborts.
 */
export function capture(
  parts: Parts,
  on: (segment: Segment) => void,
  signal: AbortSignal,
): Promise<void> {
  const { settings, log } = parts
  const plan = planFor(settings)
  const args = ['--immediate-mode', '-n', '-i', plan.devices.production, '-Z', 'root']
  const sizes = ['-B', `${RING_KIB}`, '-U', '-s', `${SNAPSHOT_BYTES}`]
  const start = () =>
    listenTo(
      startChild(
        { program: 'tcpdump', args: [...args, ...sizes, '-w', '-', captureFilter(plan)] },
        { stdio: ['ignore', 'pipe', 'pipe'] },
      ),
      segmentReader(settings, on),
      parts,
    )
  return keepRunning(start, { name: 'tcpdump', log }, signal)
}

function listenTo(child: ChildProcess, read: (frame: Buffer) => void, { log, lost }: Parts) {
  const reader = new PcapReader()
  let lostBefore = 0
  let asking: NodeJS.Timeout | undefined
  child.stdout?.on('data', (chunk: Buffer) => {
    // Its signal handler is there by the time it has written something; before that, the signal would end it.
    asking ??= setInterval(() => child.kill('SIGUSR1'), LOST_EVERY_MS)
    try {
      for (const frame of reader.push(chunk)) read(frame)
    } catch (error: unknown) {
      log('error', 'capture.unreadable', { error })
      child.kill('SIGTERM')
    }
  })
  child.stderr?.on('data', (chunk: Buffer) => {
    const [, frames] = /(\d+) packets? dropped by kernel/.exec(chunk.toString()) ?? []
    if (frames === undefined) return
    lost?.(Number(frames))
    if (Number(frames) > lostBefore) log('warn', 'capture.frames-lost', { frames: Number(frames) })
    lostBefore = Number(frames)
  })
  child.once('close', () => clearInterval(asking))
  return child
}

/** Turns frames into segments of known services. */
function segmentReader(settings: Settings, on: (segment: Segment) => void) {
  const services = new Map<string, ServiceName>()
  for (const { ipv4, ipv6, services: protectedHere } of planFor(settings).addresses)
    for (const { name, port } of protectedHere)
      for (const address of [ipv4, ipv6])
        if (address !== undefined) services.set(`${address}:${port}`, name)
  return (bytes: Buffer) => {
    const tcp = tcpFrameOf(bytes)
    const segment = tcp === undefined ? undefined : segmentOf(tcp, services, bytes)
    if (segment !== undefined) on(segment)
  }
}

function segmentOf(
  tcp: TcpFrame,
  services: ReadonlyMap<string, ServiceName>,
  bytes: Buffer,
): Segment | undefined {
  const source = `${tcp.source}:${tcp.sourcePort}`
  const destination = `${tcp.destination}:${tcp.destinationPort}`
  const asked = services.get(destination)
  const service = asked ?? services.get(source)
  if (service === undefined) return undefined
  const { syn, ack, rst, fin, seq, payload, payloadBytes } = tcp
  const [client, server] = asked === undefined ? [destination, source] : [source, destination]
  const opening = asked !== undefined && syn && !ack
  return {
    atMs: performance.now(),
    service,
    from: asked === undefined ? 'production' : 'users',
    client,
    server,
    ...{ syn, ack, rst, fin, seq, payload, payloadBytes },
    ...(opening ? { frame: Buffer.from(bytes) } : {}),
  }
}
