import { type Service, type ServiceName, serviceName } from '../../config.ts'

/** What a trigger needs to know of a captured TCP segment; the capture's own segments fit. */
export type TriggerSegment = {
  /** Monotonic. */
  readonly atMs: number
  readonly service: ServiceName
  readonly from: 'users' | 'production'
  /** Address and port of the user's side. */
  readonly client: string
  readonly syn: boolean
  readonly rst: boolean
  readonly fin: boolean
  /** The captured part of the payload. */
  readonly payload: Buffer
  readonly payloadBytes: number
}

export type TriggersOptions = {
  readonly services: readonly Service[]
  /** The users who get mail for an address; none when it is not one of ours. */
  readonly resolve: (address: string) => readonly string[]
  /** Something may have changed: in a user's folder, or, without arguments, anywhere. */
  readonly hint: (user?: string, path?: string) => void
}

/** One SMTP session in clear, as far as seen. */
type Flow = {
  readonly recipients: Set<string>
  /** `message`: production's next answer says whether it took a message. */
  state: 'commands' | 'starting-tls' | 'message'
  /** The line that has not ended yet, of each side. */
  readonly rest: { users: string; production: string }
  lastMs: number
}

const FLOWS_MAX = 4_096
const FLOW_IDLE_MS = 10 * 60_000
const RECIPIENTS_MAX = 1_000
/** RFC 5321 §4.5.3.1.4: a command line has at most 512 octets, with extensions more. */
const LINE_MAX = 2_048
/** Segments nearer than this to each other say the same. */
const DEBOUNCE_MS = 50

/**
 * Turns what passes by on the wire into hints for the replicator. SMTP in clear tells whose mailbox a message will
 * reach; of everything else only that users did something. Nothing is kept but recipients of the present transaction.
 */
export class Triggers {
  readonly #options: TriggersOptions
  readonly #readable: ReadonlySet<ServiceName>
  /** In the order of their last segment. */
  readonly #flows = new Map<string, Flow | 'encrypted'>()
  #hintedMs = Number.NEGATIVE_INFINITY

  constructor(options: TriggersOptions) {
    this.#options = options
    this.#readable = new Set(
      options.services
        .filter(({ protocol }) => protocol === 'smtp' || protocol === 'submission')
        .filter(({ tls }) => tls !== 'implicit')
        .map(serviceName),
    )
  }

  /** Sessions that are followed. */
  get flows(): number {
    return this.#flows.size
  }

  segment(segment: TriggerSegment): void {
    const key = `${segment.service} ${segment.client}`
    if (segment.syn || segment.rst || segment.fin) this.#flows.delete(key)
    if (segment.payloadBytes === 0) return
    if (!this.#readable.has(segment.service)) {
      this.#somebody(segment)
      return
    }
    const flow = this.#touch(key, segment)
    if (flow === 'encrypted') {
      this.#somebody(segment)
      return
    }
    // Of a message only production's answer matters.
    if (segment.from === 'users' && flow.state === 'message') return
    const text = flow.rest[segment.from] + segment.payload.toString('latin1')
    const lines = text.split('\n')
    const whole = segment.payload.length === segment.payloadBytes
    flow.rest[segment.from] = whole ? (lines.pop() ?? '').slice(-LINE_MAX) : ''
    for (const line of lines) {
      if (segment.from === 'users') this.#command(flow, line)
      else if (this.#answer(flow, line) === 'encrypted') this.#flows.set(key, 'encrypted')
    }
  }

  #touch(key: string, { atMs }: TriggerSegment): Flow | 'encrypted' {
    const flow = this.#flows.get(key) ?? {
      recipients: new Set(),
      state: 'commands',
      rest: { users: '', production: '' },
      lastMs: atMs,
    }
    if (flow !== 'encrypted') flow.lastMs = atMs
    this.#flows.delete(key)
    this.#flows.set(key, flow)
    for (const [oldest, other] of this.#flows) {
      const expired = other !== 'encrypted' && atMs - other.lastMs > FLOW_IDLE_MS
      if (!expired && this.#flows.size <= FLOWS_MAX) break
      this.#flows.delete(oldest)
    }
    return flow
  }

  #command(flow: Flow, line: string): void {
    const recipient = /^RCPT TO:\s*<([^>]+)>/i.exec(line)?.[1]
    if (recipient !== undefined && flow.recipients.size < RECIPIENTS_MAX)
      for (const user of this.#options.resolve(recipient)) flow.recipients.add(user)
    if (/^(MAIL FROM:|RSET|EHLO|HELO)/i.test(line)) flow.recipients.clear()
    if (/^STARTTLS/i.test(line)) flow.state = 'starting-tls'
    if (/^BDAT \d+ LAST/i.test(line)) flow.state = 'message'
  }

  #answer(flow: Flow, line: string): 'encrypted' | undefined {
    const code = /^([2-5]\d\d)( |\r|$)/.exec(line)?.[1]
    if (code === undefined) return undefined
    if (flow.state === 'starting-tls' && code === '220') return 'encrypted'
    if (flow.state === 'message') {
      if (code === '250') for (const user of flow.recipients) this.#options.hint(user, 'INBOX')
      flow.recipients.clear()
    }
    flow.state = code === '354' ? 'message' : 'commands'
    return undefined
  }

  #somebody({ from, atMs }: TriggerSegment): void {
    if (from !== 'users' || atMs - this.#hintedMs < DEBOUNCE_MS) return
    this.#hintedMs = atMs
    this.#options.hint()
  }
}
