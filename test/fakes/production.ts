import { type Service, type ServiceName, serviceName } from '../../agent/config.ts'
import type { WireSegment } from '../../agent/health/passive.ts'
import type { Kept, Probed, ProbeOptions } from '../../agent/health/probes/probe.ts'
import { NotHeard } from '../../agent/health/probes/tcp.ts'
import type { Reach } from '../../agent/health/reach.ts'
import type { AskFresh } from '../../agent/health/service-watch.ts'
import type { OpenSession } from '../../agent/health/session-watch.ts'
import { asleep } from '../../agent/health/waiting.ts'
import type { Clock } from '../../firmware/clock.ts'
import { whole } from './random.ts'

/** First retransmission of a SYN (RFC 6298), and of data on a quick path (Linux TCP_RTO_MIN). Each next: doubled. */
const SYN_RETRY_MS = 1_000
const DATA_RETRY_MS = 200
const WIRE_MS = 0.3

type Connection = { over: () => void; ended: boolean }

/**
 * A mail server, its cable and its users, as health sees them. Packets are lost and sent again as TCP does it; what
 * it is told to suffer, it suffers as a whole.
 */
export class FakeProduction implements Reach {
  readonly #clock: Clock
  readonly #draw: () => number
  readonly #ending: AbortSignal
  readonly #connections = new Set<Connection>()
  readonly #changed = new Set<() => void>()
  #process: 'running' | 'stopped' | 'gone' = 'running'
  #pathOpen = true
  /** Share of packets lost. */
  loss = 0
  /** Longest extra time the machine takes for anything. */
  stormMs = 0

  constructor(clock: Clock, draw: () => number, ending: AbortSignal) {
    this.#clock = clock
    this.#draw = draw
    this.#ending = ending
  }

  /** Its processes freeze; the kernel goes on. */
  stop(): void {
    this.#become('stopped')
  }

  /** Its processes run (again). */
  go(): void {
    this.#become('running')
  }

  /** Its processes die: ports refuse, connections end. */
  kill(): void {
    this.#become('gone')
    for (const connection of this.#connections) {
      connection.ended = true
      if (this.#pathOpen) connection.over()
    }
    this.#connections.clear()
  }

  /** No frame passes, in either direction. */
  cut(): void {
    this.#pathOpen = false
  }

  mend(): void {
    this.#pathOpen = true
  }

  fresh(_service: Service): AskFresh {
    return async (options) => {
      const askedMs = this.#clock.now()
      try {
        return await this.#greet(options, askedMs)
      } catch (error: unknown) {
        if (!(error instanceof NotHeard)) throw error
        const afterMs = this.#clock.now() - askedMs
        return { result: { heard: false, because: error.because, afterMs, said: error.message } }
      }
    }
  }

  session(service: Service): OpenSession | undefined {
    if (service.protocol !== 'imap') return undefined
    return async (signal) => {
      await this.#handshake(signal)
      await this.#answer(signal)
      const connection = this.#connect()
      const closing = new AbortController()
      return {
        over: connection.kept.over,
        get ended() {
          return connection.own.ended
        },
        noop: async () => {
          if (connection.own.ended) throw new NotHeard('reset', 'ended')
          await this.#answer(AbortSignal.any([closing.signal, signal]))
        },
        close: () => {
          closing.abort()
          connection.kept.close()
        },
      }
    }
  }

  /** One user who connects, asks now and then, and goes; the wire's segments go to `see`. */
  async user(service: Service, client: string, see: (segment: WireSegment) => void): Promise<void> {
    const ending = this.#ending
    const name: ServiceName = serviceName(service)
    const say = (from: WireSegment['from'], what: Partial<WireSegment>) =>
      see({ ...QUIET, ...what, from, client, service: name, atMs: this.#clock.now() })
    let seq = 1_000
    try {
      const refused = await this.#pass(SYN_RETRY_MS, ending, () => say('users', { syn: true }))
      if (refused) return say('production', { rst: true, ack: true })
      say('production', { syn: true, ack: true, seq })
      for (let commands = whole(this.#draw, 1, 12); commands > 0 && !ending.aborted; commands--) {
        await this.#answer(ending)
        say('production', { ack: true, payloadBytes: 40, seq: seq + 1 })
        seq += 40
        await asleep(this.#clock, whole(this.#draw, 50, 2_000), ending)
        if (this.#process === 'gone') return say('production', { fin: true, ack: true, seq })
        say('users', { ack: true, payloadBytes: 20 })
        // A search through a large mailbox.
        if (this.#draw() < 0.05) await asleep(this.#clock, whole(this.#draw, 100, 4_000), ending)
      }
      say('users', { fin: true, ack: true })
    } catch (error: unknown) {
      if (!(error instanceof NotHeard)) throw error
    }
  }

  async #greet({ signal, accepted }: ProbeOptions, askedMs: number): Promise<Probed> {
    await this.#handshake(signal)
    accepted()
    await this.#answer(signal)
    const tookMs = this.#clock.now() - askedMs
    return { result: { heard: true, tookMs, said: 'ready' }, kept: this.#connect().kept }
  }

  async #handshake(signal: AbortSignal): Promise<void> {
    if (await this.#pass(SYN_RETRY_MS, signal)) throw new NotHeard('refused', 'refused')
  }

  /** A question of one packet, its answer of one packet, by a process that must run for it. */
  async #answer(signal: AbortSignal): Promise<void> {
    await this.#pass(DATA_RETRY_MS, signal)
    while (this.#process !== 'running') {
      if (this.#process === 'gone') {
        if (this.#pathOpen) throw new NotHeard('reset', 'ended')
        await this.#forever(signal)
      }
      await this.#change(signal)
    }
    await this.#spend(this.#draw() * this.stormMs, signal)
    await this.#pass(DATA_RETRY_MS, signal)
  }

  /** Sends a packet until it and what acknowledges it get through; whether the port is closed then. */
  async #pass(firstRetryMs: number, signal: AbortSignal, sent?: () => void): Promise<boolean> {
    for (let retryMs = firstRetryMs; ; retryMs *= 2) {
      sent?.()
      if (this.#pathOpen && this.#draw() >= this.loss && this.#draw() >= this.loss) break
      await this.#spend(retryMs, signal)
    }
    await this.#spend(WIRE_MS, signal)
    return this.#process === 'gone' && this.#pathOpen
  }

  async #spend(ms: number, signal: AbortSignal): Promise<void> {
    if (!(await asleep(this.#clock, ms, signal))) throw new NotHeard('silent', 'no answer')
  }

  async #forever(signal: AbortSignal): Promise<void> {
    for (;;) await this.#spend(1_000, signal)
  }

  #change(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(new NotHeard('silent', 'no answer'))
      const changed = () => {
        signal.removeEventListener('abort', aborted)
        this.#changed.delete(changed)
        resolve()
      }
      const aborted = () => {
        this.#changed.delete(changed)
        reject(new NotHeard('silent', 'no answer'))
      }
      signal.addEventListener('abort', aborted, { once: true })
      this.#changed.add(changed)
    })
  }

  #become(state: 'running' | 'stopped' | 'gone'): void {
    this.#process = state
    for (const changed of [...this.#changed]) changed()
  }

  #connect(): { kept: Kept; own: Connection } {
    let over = () => {}
    const ended = new Promise<void>((resolve) => {
      over = resolve
    })
    const own: Connection = { over, ended: false }
    this.#connections.add(own)
    const close = () => {
      own.ended = true
      this.#connections.delete(own)
      over()
    }
    return { kept: { over: ended, close }, own }
  }
}

const QUIET = {
  syn: false,
  ack: false,
  rst: false,
  fin: false,
  seq: 0,
  payloadBytes: 0,
} as const
