import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'
import { startChild } from '../../firmware/child.ts'
import type { Log } from '../../firmware/log.ts'
import type { Settings } from '../config.ts'
import type { Segment } from './capture.ts'
import { sourceMacOf, withChecksum } from './frame.ts'
import { keepRunning } from './keep.ts'
import { planFor, type WirePlan } from './plan.ts'

/** A user's TCP tries again after a second, and by then the held port has it. */
const KEPT_MS = 3_000
const KEPT_MAX = 1_024
const LOOPBACK = '127.0.0.1'

type Kept = { readonly atMs: number; readonly frame: Buffer }

/**
 * Users whose SYN production refused need not wait a second for their TCP to try again: the refusal never reached
 * them (the rules drop it and hold the port), and their SYN is sent to the door once more. The frame goes out on the
 * outer end of the door's pair, so that the door receives it as if it came from the user.
 */
export class Replay {
  readonly #plan: WirePlan
  readonly #log: Log
  readonly #kept = new Map<string, Kept>()
  #port: number | undefined
  #socket: Socket | undefined
  #sent = 0

  constructor({ settings, log }: { settings: Settings; log: Log }) {
    this.#plan = planFor(settings)
    this.#log = log
  }

  /** How many SYNs were sent again. */
  get sent(): number {
    return this.#sent
  }

  /** Keeps socat(1) running, which turns datagrams into frames, until the signal aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const socket = createSocket('udp4')
    // A datagram that socat is not there for is a SYN that its user sends again.
    socket.on('error', (error) => this.#log('debug', 'replay.failed', { error }))
    this.#port = await freePort()
    this.#socket = socket
    const from = `UDP4-RECV:${this.#port},bind=${LOOPBACK}`
    const args = ['-u', from, `INTERFACE:${this.#plan.devices.door}`]
    const start = () => startChild({ program: 'socat', args }, { stdio: 'ignore' })
    await keepRunning(start, { name: 'socat', log: this.#log }, signal)
    this.#socket = undefined
    socket.close()
  }

  /** To be told every segment: remembers users' SYNs and answers production's refusals. */
  segment(segment: Segment): void {
    const { from, atMs, frame, rst, ack, seq } = segment
    const flow = `${segment.client} ${segment.server}`
    if (frame !== undefined) this.#keep(flow, { atMs, frame })
    if (from !== 'production' || !rst || !ack || seq !== 0) return
    const kept = this.#kept.get(flow)
    this.#kept.delete(flow)
    if (kept !== undefined && atMs - kept.atMs <= KEPT_MS) this.#send(kept.frame)
  }

  #keep(flow: string, kept: Kept): void {
    // Our own legs use users' addresses too, and must hear a refusal.
    if (sourceMacOf(kept.frame) === this.#plan.legMac) return
    this.#kept.delete(flow)
    this.#kept.set(flow, kept)
    const [oldest] = this.#kept.keys()
    if (this.#kept.size > KEPT_MAX && oldest !== undefined) this.#kept.delete(oldest)
  }

  #send(frame: Buffer): void {
    const whole = withChecksum(frame)
    if (whole === undefined || this.#port === undefined) return
    this.#socket?.send(whole, this.#port, LOOPBACK)
    this.#sent += 1
  }
}

/** A UDP port that is free on loopback. */
async function freePort(): Promise<number> {
  const socket = createSocket('udp4')
  socket.bind(0, LOOPBACK)
  await once(socket, 'listening')
  const { port } = socket.address()
  socket.close()
  return port
}
