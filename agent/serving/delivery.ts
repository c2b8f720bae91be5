import { setTimeout as delay } from 'node:timers/promises'
import type { Log } from '../../firmware/log.ts'
import type { Settings } from '../config.ts'
import type { Admit } from './auth.ts'
import { bounceStream, bounceText, type Failure, headerOf } from './bounce.ts'
import { resolve } from './directory.ts'
import type { Gate } from './gate.ts'
import { acceptedMs, type Entry, type MailQueue, type Recipient } from './queue.ts'
import {
  byDomain,
  type Hop,
  mxHops,
  productionHops,
  type RelaySecrets,
  smarthostHop,
} from './routes.ts'
import { type Outcome, Transport } from './transport.ts'

/** Whether one of a user's mailboxes holds the message with this queue id in a `Received:` header. */
export type Delivered = (user: string, queueId: string) => Promise<boolean>

/** Search keys for `doveadm search` (doveadm-search-query(7)) that find a message by its queue id. */
export function deliveredQuery(queueId: string): readonly string[] {
  // Only what came since then is opened; a day is left to time zones.
  const since = new Date(acceptedMs(queueId) - 86_400_000).toISOString().slice(0, 10)
  return ['SINCE', since, 'HEADER', 'Received', `id ${queueId}`]
}

export type DeliveryOptions = {
  readonly settings: Settings
  readonly queue: MailQueue
  readonly users: ReadonlyMap<string, unknown>
  readonly admit: Admit
  readonly delivered: Delivered
  /** Deliveries to mailboxes happen inside only. */
  readonly gate: Gate
  /** Dovecot's LMTP socket. */
  readonly lmtp: string
  readonly secrets: RelaySecrets
  readonly log: Log
  /** First waiting times before another attempt; the last one is repeated. */
  readonly retryMs?: readonly number[]
}

type Lane = 'local' | 'remote'
type Outcomes = ReadonlyMap<number, Outcome>
type Target = Recipient & { readonly index: number }

const RETRY_MS = [1_000, 5_000, 30_000, 120_000, 300_000, 900_000]
/** How long a sender is kept in hope (RFC 5321 §4.5.4.1 asks for four to five days). */
const PATIENCE_MS = 5 * 86_400_000
const CLOSE_MS = 5_000
/** Messages in a row that production did not take: it is not ready, and the rest waits too. */
const FLUSH_REFUSALS_MAX = 3
const WORKERS: Readonly<Record<Lane, number>> = { local: 4, remote: 4 }

/** Delivers what the queue holds: to mailboxes exactly once, elsewhere as the settings say. */
export class Delivery {
  readonly #options: DeliveryOptions
  readonly #ready: Readonly<Record<Lane, Entry[]>> = { local: [], remote: [] }
  readonly #working: Record<Lane, number> = { local: 0, remote: 0 }
  readonly #running = new Set<Promise<void>>()
  readonly #timers = new Set<NodeJS.Timeout>()
  readonly #attempts = { local: new WeakMap<Entry, number>(), remote: new WeakMap<Entry, number>() }
  #closed = false

  constructor(options: DeliveryOptions) {
    this.#options = options
  }

  /** Takes care of an entry until it is delivered, bounced, or handed to production. */
  add(entry: Entry): void {
    if (this.#targets(entry, 'local').length > 0) this.#ready.local.push(entry)
    if (this.#targets(entry, 'remote').length > 0 && this.#relays) this.#ready.remote.push(entry)
    this.pump()
  }

  /** Starts what can be started: after the gate has been opened, after an entry has been added. */
  pump(): void {
    if (this.#closed) return
    for (const lane of ['local', 'remote'] as const) {
      const free = WORKERS[lane] - this.#working[lane]
      const wanted = Math.min(free, this.#ready[lane].length)
      if (lane === 'local' && !this.#options.gate.isOpen) continue
      for (let n = 0; n < wanted; n += 1) this.#start(lane)
    }
  }

  /** Starts no attempt any more. Answers when none is running, or those that are seem to hang: they are on the medium. */
  async close(): Promise<void> {
    this.#closed = true
    for (const timer of this.#timers) clearTimeout(timer)
    const patience = new AbortController()
    const { signal } = patience
    const late = delay(CLOSE_MS, undefined, { signal, ref: false }).catch(() => undefined)
    await Promise.race([Promise.all(this.#running), late])
    patience.abort()
  }

  /**
   * Hands what is left to production, which is back: mail that waited for it, and mail to mailboxes that could not
   * be delivered here. To be called while the gate is shut. Answers how many messages remain, to be tried again.
   */
  async flushToProduction(): Promise<number> {
    const { queue, log } = this.#options
    let refusals = 0
    for (const entry of queue.entries) {
      const taken = await this.#flush(entry).catch((error: unknown) => {
        log('warn', 'delivery.deferred', { id: entry.envelope.id, problem: reasonOf(error) })
        return false
      })
      refusals = taken ? 0 : refusals + 1
      if (refusals >= FLUSH_REFUSALS_MAX) break
    }
    return queue.length
  }

  /** Whether production took the entry, or refused it for good. */
  async #flush(entry: Entry): Promise<boolean> {
    const { settings, secrets } = this.#options
    await this.#dropDelivered(entry)
    const local = this.#targets(entry, 'local')
    const remote = this.#relays ? [] : this.#targets(entry, 'remote')
    const { by } = entry.envelope
    const outcomes = new Map([
      ...(await this.#hand(entry, local, productionHops(settings, undefined, secrets))),
      ...(await this.#hand(entry, remote, productionHops(settings, by, secrets))),
    ])
    await this.#settle(entry, outcomes)
    return [...outcomes.values()].every(({ name }) => name !== 'later')
  }

  get #relays(): boolean {
    return this.#options.settings.serving.relay.by !== 'production'
  }

  #targets(entry: Entry, lane: Lane): readonly Target[] {
    return entry.envelope.recipients
      .map((recipient, index) => ({ ...recipient, index }))
      .filter(({ kind, index }) => kind === lane && entry.pending.has(index))
  }

  #start(lane: Lane): void {
    this.#working[lane] += 1
    const work = lane === 'local' ? this.#workLocal() : this.#workRemote()
    const running = work.finally(() => {
      this.#working[lane] -= 1
      this.#running.delete(running)
      this.pump()
    })
    this.#running.add(running)
  }

  /** One LMTP connection serves all that is ready. */
  async #workLocal(): Promise<void> {
    const lmtp = new LmtpLine(this.#options.lmtp, this.#options.settings.production.hostname)
    const { gate } = this.#options
    while (gate.isOpen && !this.#closed) {
      const entry = this.#ready.local.shift()
      if (entry === undefined) break
      await gate.pass(async () => {
        await this.#attempt(entry, 'local', () => this.#deliverLocal(entry, lmtp))
      }, 0)
    }
    lmtp.close()
  }

  async #workRemote(): Promise<void> {
    while (!this.#closed) {
      const entry = this.#ready.remote.shift()
      if (entry === undefined) return
      await this.#attempt(entry, 'remote', () => this.#deliverRemote(entry))
    }
  }

  /** Whatever goes wrong, the entry is kept and tried again: it is on the medium, and it is ours. */
  async #attempt(entry: Entry, lane: Lane, deliver: () => Promise<Outcomes>): Promise<void> {
    if (this.#targets(entry, lane).length === 0) return
    let problem: unknown
    try {
      const outcomes = await deliver()
      await this.#settle(entry, outcomes)
      problem = [...outcomes.values()].find(({ name }) => name === 'later')
    } catch (error: unknown) {
      // It may have arrived although we were not told so.
      entry.suspect = true
      problem = error
    }
    if (this.#targets(entry, lane).length === 0) return
    const { id } = entry.envelope
    this.#options.log('warn', 'delivery.deferred', { id, lane, problem: reasonOf(problem) })
    this.#retry(entry, lane)
  }

  #retry(entry: Entry, lane: Lane): void {
    const { retryMs = RETRY_MS } = this.#options
    const attempts = this.#attempts[lane].get(entry) ?? 0
    this.#attempts[lane].set(entry, attempts + 1)
    const timer = setTimeout(
      () => {
        this.#timers.delete(timer)
        this.#ready[lane].push(entry)
        this.pump()
      },
      retryMs[Math.min(attempts, retryMs.length - 1)],
    )
    this.#timers.add(timer)
  }

  async #deliverLocal(entry: Entry, lmtp: LmtpLine): Promise<Outcomes> {
    await this.#dropDelivered(entry)
    const outcomes = new Map<number, Outcome>()
    const ready: (Target & { readonly kind: 'local' })[] = []
    for (const target of this.#targets(entry, 'local')) {
      if (target.kind !== 'local') continue
      const admission = await this.#options.admit(target.user)
      if (admission === 'ready') ready.push(target)
      else outcomes.set(target.index, notAdmitted(admission))
    }
    if (ready.length === 0) return outcomes
    const answers = await lmtp.send({
      from: asciiOrEmpty(entry.envelope.from),
      to: ready.map(({ user }) => user),
      message: this.#options.queue.read(entry),
    })
    for (const { index, user } of ready) outcomes.set(index, answers.get(user) ?? UNANSWERED)
    return outcomes
  }

  /** After a crash, and after an attempt without an answer: who has it already is done with. */
  async #dropDelivered(entry: Entry): Promise<void> {
    if (!entry.suspect) return
    const { delivered, queue, log } = this.#options
    const { id } = entry.envelope
    for (const target of this.#targets(entry, 'local'))
      if (target.kind === 'local' && (await delivered(target.user, id))) {
        log('info', 'delivery.found', { id, user: target.user })
        await queue.finish(entry, [target.index])
      }
    entry.suspect = false
  }

  async #deliverRemote(entry: Entry): Promise<Outcomes> {
    const { settings, secrets } = this.#options
    const { relay } = settings.serving
    const { hostname } = settings.production
    const targets = this.#targets(entry, 'remote')
    if (relay.by === 'smarthost')
      return await this.#hand(entry, targets, [smarthostHop(relay, hostname, secrets)])
    const outcomes = new Map<number, Outcome>()
    for (const [domain, addresses] of byDomain(targets.map(({ address }) => address))) {
      const own = targets.filter(({ address }) => addresses.includes(address))
      const hops = await mxHops(domain, hostname).catch((error: unknown) => error)
      const results = Array.isArray(hops)
        ? await this.#hand(entry, own, hops)
        : new Map(own.map(({ index }) => [index, later(hops)] as const))
      for (const [index, outcome] of results) outcomes.set(index, outcome)
    }
    return outcomes
  }

  /** Hands the message to the first of these servers that can be talked to. */
  async #hand(entry: Entry, targets: readonly Target[], hops: readonly Hop[]): Promise<Outcomes> {
    if (targets.length === 0) return new Map()
    let problem: unknown = 'the domain accepts no mail'
    for (const { connection, login } of hops) {
      let transport: Transport
      try {
        transport = await Transport.open(connection, login)
      } catch (error: unknown) {
        problem = error
        continue
      }
      try {
        const to = [...new Set(targets.map(({ address }) => address))]
        const message = this.#options.queue.read(entry)
        const answers = await transport.send({ from: entry.envelope.from, to, message })
        return new Map(
          targets.map(({ index, address }) => [index, answers.get(address) ?? UNANSWERED]),
        )
      } catch (error: unknown) {
        problem = error
        break
      } finally {
        transport.quit()
      }
    }
    return new Map(targets.map(({ index }) => [index, later(problem)]))
  }

  /** First the bounce, then the note that the recipient is done with: a crash between them repeats the bounce only. */
  async #settle(entry: Entry, outcomes: Outcomes): Promise<void> {
    const { envelope } = entry
    const tooOld = Date.now() - Date.parse(envelope.acceptedAt) > PATIENCE_MS
    const failures: Failure[] = []
    const finished: number[] = []
    for (const [index, outcome] of outcomes) {
      const recipient = envelope.recipients[index]
      if (recipient === undefined || (outcome.name === 'later' && !tooOld)) continue
      finished.push(index)
      if (outcome.name !== 'done')
        failures.push({ address: recipient.address, because: outcome.because })
    }
    if (failures.length > 0) await this.#bounce(entry, failures)
    await this.#options.queue.finish(entry, finished)
    this.#options.log('info', 'delivery.settled', { id: envelope.id, recipients: finished.length })
  }

  async #bounce(entry: Entry, failures: readonly Failure[]): Promise<void> {
    const { settings, queue, users, log } = this.#options
    const { envelope } = entry
    log('warn', 'delivery.refused', { id: envelope.id, recipients: failures.length })
    // Nobody is told of a bounce that cannot be delivered (RFC 5321 §6.1).
    if (envelope.from === '') return
    const destination = resolve(envelope.from, settings, users)
    if (destination === 'unknown-local') return
    const recipients: Recipient[] =
      destination === 'elsewhere'
        ? [{ kind: 'remote', address: envelope.from }]
        : destination.users.map((user) => ({ kind: 'local', user, address: envelope.from }))
    const header = await headerOf(queue.read(entry))
    const { hostname } = settings.production
    const text = bounceText({ envelope, failures, header, hostname, date: new Date() })
    const received = (id: string) => `Received: by ${hostname} id ${id}\r\n`
    const staged = await queue.stage({ from: '', recipients }, received, bounceStream(text))
    this.add(await staged.commit())
  }
}

/** An LMTP connection that is made when it is needed, and made anew after anything unusual. */
class LmtpLine {
  readonly #path: string
  readonly #hostname: string
  #transport: Transport | undefined

  constructor(path: string, hostname: string) {
    this.#path = path
    this.#hostname = hostname
  }

  async send(mail: Parameters<Transport['send']>[0]): ReturnType<Transport['send']> {
    try {
      this.#transport ??= await Transport.openLmtp(this.#path, this.#hostname)
      const outcomes = await this.#transport.send(mail)
      if ([...outcomes.values()].some(({ name }) => name !== 'done')) this.close()
      return outcomes
    } catch (error: unknown) {
      mail.message.destroy()
      this.#transport?.close()
      this.#transport = undefined
      throw error
    }
  }

  close(): void {
    this.#transport?.quit()
    this.#transport = undefined
  }
}

const UNANSWERED: Outcome = { name: 'later', because: 'the server did not say' }

const later = (problem: unknown): Outcome => ({ name: 'later', because: reasonOf(problem) })

const notAdmitted = (admission: 'unavailable' | 'unknown'): Outcome =>
  admission === 'unavailable'
    ? { name: 'later', because: 'the mailbox is not available here at present' }
    : { name: 'never', because: '550 5.1.1 there is no such mailbox' }

/** Dovecot's LMTP knows no SMTPUTF8: such a sender stands in the header only. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: exactly ASCII is meant
const asciiOrEmpty = (address: string): string => (/^[\x00-\x7f]*$/.test(address) ? address : '')

const reasonOf = (problem: unknown): string => {
  if (problem instanceof Error) return problem.message
  return typeof problem === 'object' && problem !== null && 'because' in problem
    ? String(problem.because)
    : String(problem)
}
