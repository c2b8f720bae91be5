import { type Service, type ServiceName, serviceName } from '../config.ts'

/** What the wire shows of one TCP segment of a protected service, as far as health is concerned. */
export type WireSegment = {
  /** On the monotonic clock. */
  readonly atMs: number
  readonly service: ServiceName
  readonly from: 'users' | 'production'
  /** The user's address and port: `10.77.0.20:40123`. */
  readonly client: string
  readonly syn: boolean
  readonly ack: boolean
  readonly rst: boolean
  readonly fin: boolean
  readonly seq: number
  readonly payloadBytes: number
}

/** What users' traffic says about a service; `sinceMs` is when the user asked, or when production spoke. */
export type Signal = {
  readonly service: ServiceName
  readonly kind: 'alive' | 'refused' | 'silent'
  readonly sinceMs: number
}

type Flow = {
  /** Sent a SYN, and production has not completed the handshake. */
  opening: boolean
  /** Has asked something that production has not answered; more of the same asks nothing new. */
  asking: boolean
  /** The sequence number that follows what production has said so far: repeating itself is no sign of life. */
  production: number | undefined
  seenMs: number
}

type Listening = {
  readonly speaksFirst: boolean
  readonly flows: Map<string, Flow>
  /** Questions nobody has answered since the service last spoke, oldest first. */
  readonly questions: Map<string, number>
  /** Users' addresses whose complaint turned out to be theirs alone, and until when they are not believed. */
  readonly disbelieved: Map<string, number>
  readonly complained: Set<string>
  noticed: boolean
  saidAliveMs: number
}

const FLOWS_MAX = 4_096
const FLOW_IDLE_MS = 300_000
const QUESTIONS_MAX = 1_024
const CLIENTS_MAX = 1_024
const DISBELIEF_MS = 60_000
/** On a busy wire, one sign of life in so long is enough. */
const ALIVE_EVERY_MS = 20

/**
 * Reads the users' conversations with production for signs of life and of trouble. It has no clock and no effects:
 * time stands in the segments and in the arguments.
 */
export class Passive {
  readonly #noticeMs: number
  readonly #services = new Map<ServiceName, Listening>()

  constructor(services: readonly Service[], noticeMs: number) {
    this.#noticeMs = noticeMs
    for (const service of services)
      this.#services.set(serviceName(service), {
        speaksFirst: service.tls !== 'implicit',
        flows: new Map(),
        questions: new Map(),
        disbelieved: new Map(),
        complained: new Set(),
        noticed: false,
        saidAliveMs: Number.NEGATIVE_INFINITY,
      })
  }

  /** What this segment says at once, if anything. */
  segment(segment: WireSegment): Signal | undefined {
    const listening = this.#services.get(segment.service)
    if (listening === undefined) return undefined
    if (segment.from === 'production') return this.#fromProduction(listening, segment)
    this.#fromUser(listening, segment)
    return undefined
  }

  /** When the oldest unanswered question becomes remarkable, if nothing comes; `Infinity` when there is none. */
  dueMs(): number {
    let due = Number.POSITIVE_INFINITY
    for (const { questions, noticed } of this.#services.values()) {
      const oldest = noticed ? undefined : first(questions)
      if (oldest !== undefined) due = Math.min(due, oldest[1] + this.#noticeMs)
    }
    return due
  }

  /** The silences that have become remarkable by now; each is said once, until the service speaks again. */
  silences(nowMs: number): Signal[] {
    const signals: Signal[] = []
    for (const [service, listening] of this.#services) {
      const oldest = first(listening.questions)
      if (oldest === undefined || listening.noticed || oldest[1] + this.#noticeMs > nowMs) continue
      listening.noticed = true
      for (const asker of listening.questions.keys()) complain(listening, asker)
      signals.push({ service, kind: 'silent', sinceMs: oldest[1] })
    }
    return signals
  }

  /** The service spoke on a connection of ours: users' open questions are slow answers, not silence. */
  alive(service: ServiceName): void {
    const listening = this.#services.get(service)
    if (listening !== undefined) hush(listening)
  }

  /** What users complained of, connections of ours met too; it is over. */
  confirmed(service: ServiceName): void {
    const listening = this.#services.get(service)
    if (listening === undefined) return
    hush(listening)
    listening.complained.clear()
  }

  /**
   * A fresh connection of ours was answered, so what users complained of was their own trouble (a filter on
   * production, a long command): the same users are not believed for a while.
   */
  refuted(service: ServiceName, nowMs: number): void {
    const listening = this.#services.get(service)
    if (listening === undefined) return
    hush(listening)
    for (const address of listening.complained) {
      listening.disbelieved.delete(address)
      listening.disbelieved.set(address, nowMs + DISBELIEF_MS)
    }
    listening.complained.clear()
    trim(listening.disbelieved, CLIENTS_MAX)
  }

  /** Forgets every conversation: the wire carries, or may have carried, answers that are not production's. */
  forget(): void {
    for (const listening of this.#services.values()) {
      hush(listening)
      listening.flows.clear()
      listening.complained.clear()
    }
  }

  #fromUser(listening: Listening, segment: WireSegment): void {
    const { client, atMs } = segment
    if (segment.rst || segment.fin) {
      listening.questions.delete(client)
      if (segment.rst) listening.flows.delete(client)
      return
    }
    const flow = flowOf(listening, client, atMs, segment.syn)
    if (!segment.syn && segment.payloadBytes === 0) return
    if (segment.syn) flow.opening = true
    if (flow.asking || !believes(listening, client, atMs)) return
    flow.asking = true
    listening.questions.set(client, atMs)
    trim(listening.questions, QUESTIONS_MAX)
  }

  #fromProduction(listening: Listening, segment: WireSegment): Signal | undefined {
    const { client, service, atMs, seq } = segment
    if (segment.rst) {
      const flow = listening.flows.get(client)
      const refusal = segment.ack && (flow?.opening ?? seq === 0)
      listening.flows.delete(client)
      listening.questions.delete(client)
      if (!refusal || !believes(listening, client, atMs)) return undefined
      complain(listening, client)
      return { service, kind: 'refused', sinceMs: atMs }
    }
    const flow = flowOf(listening, client, atMs, false)
    if (segment.syn) {
      flow.opening = false
      flow.production = seq + 1
      // The kernel shook hands. Where the server speaks first, its greeting is still owed.
      if (!listening.speaksFirst) {
        flow.asking = false
        listening.questions.delete(client)
      }
      return undefined
    }
    if (segment.payloadBytes === 0) return undefined
    const end = seq + segment.payloadBytes
    const news = flow.production !== undefined && ((end - flow.production) | 0) > 0
    if (news || flow.production === undefined) flow.production = end
    if (!news) return undefined
    flow.asking = false
    return sign(listening, service, atMs)
  }
}

/** The service spoke: whatever was asked before is not silence, and only what is new is worth saying. */
function sign(listening: Listening, service: ServiceName, atMs: number): Signal | undefined {
  const awaited = listening.noticed || listening.questions.size > 0
  hush(listening)
  if (!awaited && atMs - listening.saidAliveMs < ALIVE_EVERY_MS) return undefined
  listening.saidAliveMs = atMs
  return { service, kind: 'alive', sinceMs: atMs }
}

/** Flows that were asking stay so: a long command or a long upload does not ask again with each segment. */
function hush(listening: Listening): void {
  listening.questions.clear()
  listening.noticed = false
}

function flowOf(listening: Listening, client: string, atMs: number, anew: boolean): Flow {
  const { flows } = listening
  const known = flows.get(client)
  const repeated = known !== undefined && (!anew || known.opening)
  const flow = repeated
    ? known
    : { opening: false, asking: false, production: undefined, seenMs: atMs }
  flow.seenMs = atMs
  flows.delete(client)
  flows.set(client, flow)
  for (const [other, { seenMs }] of flows) {
    if (flows.size <= FLOWS_MAX && atMs - seenMs < FLOW_IDLE_MS) break
    flows.delete(other)
    listening.questions.delete(other)
  }
  return flow
}

const addressOf = (client: string): string => client.slice(0, client.lastIndexOf(':'))

function believes(listening: Listening, client: string, atMs: number): boolean {
  const untilMs = listening.disbelieved.get(addressOf(client))
  return untilMs === undefined || untilMs <= atMs
}

function complain(listening: Listening, client: string): void {
  if (listening.complained.size < CLIENTS_MAX) listening.complained.add(addressOf(client))
}

const first = <K, V>(map: ReadonlyMap<K, V>): [K, V] | undefined => map.entries().next().value

function trim<K>(map: Map<K, unknown>, most: number): void {
  for (const key of map.keys()) {
    if (map.size <= most) return
    map.delete(key)
  }
}
