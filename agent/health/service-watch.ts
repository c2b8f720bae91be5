import type { Clock } from '../../firmware/clock.ts'
import { type Service, type ServiceName, serviceName } from '../config.ts'
import type { Evidence } from './evidence.ts'
import type { Verdict } from './judgement.ts'
import type { Policy } from './policy.ts'
import type { Kept, Probed, ProbeOptions, ProbeResult } from './probes/probe.ts'
import { Alarm } from './waiting.ts'

/** One fresh connection to a service. */
export type AskFresh = (options: ProbeOptions) => Promise<Probed>

const HEALTHY_EVERY_MS = 5_000
/** A service that is not there, or that must earn its users back, is asked at leisure. */
const AWAY_EVERY_MS = 1_000
const PROBES_AT_ONCE = 2
const PROBE_LIMIT_MS_MIN = 5_000
/** The quickest of so many last answers is what an answer usually takes: one hiccup changes nothing. */
const ANSWERS_REMEMBERED = 5

type Options = {
  readonly service: Service
  readonly clock: Clock
  readonly policy: Policy
  readonly ask: AskFresh
  /** Whether the logged-in round trip, where there is one, works. */
  readonly sound: () => boolean
  readonly evidence: (evidence: Evidence) => void
}

type Question = {
  readonly askedMs: number
  readonly abort: AbortController
  noticed: boolean
  done: Promise<void>
}

/** The last answer, for people. */
export type Answer = {
  readonly atMs: number
  readonly tookMs: number
  readonly said: string
}

/** Asks one service by fresh connections, seldom when all is well and often in doubt; what it finds is evidence. */
export class ServiceWatch {
  readonly name: ServiceName
  readonly #options: Options
  readonly #alarm: Alarm
  readonly #questions = new Set<Question>()
  #pace: { readonly verdict: Verdict; readonly standingIn: boolean } = {
    verdict: 'unknown',
    standingIn: false,
  }
  #lastMs = Number.NEGATIVE_INFINITY
  #nextMs = 0
  #tookMs: readonly number[] = []
  #kept: Kept | undefined
  #answer: Answer | undefined
  #problem: string | undefined
  #stopped = false

  constructor(options: Options) {
    this.name = serviceName(options.service)
    this.#options = options
    this.#alarm = new Alarm(options.clock)
  }

  get answer(): Answer | undefined {
    return this.#answer
  }

  /** What is wrong although it says nothing about production being there. */
  get problem(): string | undefined {
    return this.#problem
  }

  /** How often to ask follows from what is thought of the service. */
  pace(verdict: Verdict, standingIn: boolean): void {
    const doubted = verdict === 'suspected' && this.#pace.verdict !== 'suspected'
    this.#pace = { verdict, standingIn }
    if (doubted) this.look()
    else this.#schedule(this.#lastMs + this.#everyMs())
  }

  /** Asks at once, unless it has just been asked. */
  look(): void {
    const { clock, policy } = this.#options
    const earliestMs =
      this.#pace.verdict === 'suspected' ? clock.now() : this.#lastMs + policy.probeMs
    this.#schedule(Math.min(this.#nextMs, Math.max(earliestMs, clock.now())))
  }

  async run(signal: AbortSignal): Promise<void> {
    const { clock } = this.#options
    const wake = () => this.#alarm.ring()
    signal.addEventListener('abort', wake, { once: true })
    while (!signal.aborted) {
      this.#review(clock.now())
      if (clock.now() >= this.#nextMs) this.#askAnew(clock.now())
      await this.#alarm.until(this.#dueMs())
    }
    signal.removeEventListener('abort', wake)
    this.#stopped = true
    for (const { abort } of this.#questions) abort.abort()
    await Promise.all([...this.#questions].map(({ done }) => done))
    this.#keep(undefined)
  }

  #schedule(nextMs: number): void {
    this.#nextMs = nextMs
    this.#alarm.ringBefore(nextMs)
  }

  #everyMs(): number {
    if (this.#pace.verdict === 'suspected') return this.#options.policy.probeMs
    if (this.#pace.verdict === 'healthy' && !this.#pace.standingIn) return HEALTHY_EVERY_MS
    return AWAY_EVERY_MS
  }

  #dueMs(): number {
    let due = this.#nextMs
    for (const question of this.#questions)
      due = Math.min(due, question.noticed ? this.#limitMs(question) : this.#noticeMs(question))
    return due
  }

  /** An answer that usually takes long (a greeting delayed on purpose) is not owed before then. */
  #owedMs(question: Question): number {
    return question.askedMs + (this.#tookMs.length === 0 ? 0 : Math.min(...this.#tookMs))
  }

  #noticeMs(question: Question): number {
    return this.#owedMs(question) + this.#options.policy.noticeMs
  }

  #limitMs(question: Question): number {
    return question.askedMs + Math.max(PROBE_LIMIT_MS_MIN, this.#options.policy.silentMs)
  }

  /** Says which questions have become remarkable, and ends those that have had their time. */
  #review(nowMs: number): void {
    for (const question of this.#questions) {
      if (!question.noticed && nowMs >= this.#noticeMs(question)) this.#notice(question)
      if (nowMs >= this.#limitMs(question)) question.abort.abort()
    }
  }

  #notice(question: Question): void {
    question.noticed = true
    this.#options.evidence({
      kind: 'silent',
      service: this.name,
      by: 'probe',
      sinceMs: Math.min(this.#owedMs(question), this.#options.clock.now()),
      atMs: this.#options.clock.now(),
    })
  }

  /**
   * At most two questions are open: the older one is patient, for a server that is slow to greet; the younger one
   * makes way for a new handshake, which passes the moment the path is open again.
   */
  #askAnew(nowMs: number): void {
    this.#nextMs = nowMs + this.#everyMs()
    if (this.#questions.size >= PROBES_AT_ONCE) {
      const youngest = [...this.#questions].at(-1)
      if (youngest === undefined || !youngest.noticed) return
      this.#questions.delete(youngest)
      youngest.abort.abort()
    }
    this.#lastMs = nowMs
    const question: Question = {
      askedMs: nowMs,
      abort: new AbortController(),
      noticed: false,
      done: Promise.resolve(),
    }
    this.#questions.add(question)
    question.done = this.#ask(question)
  }

  async #ask(question: Question): Promise<void> {
    const { clock, ask, evidence } = this.#options
    const { result, kept } = await ask({
      signal: question.abort.signal,
      thorough: this.#pace.standingIn,
      accepted: () => evidence({ kind: 'accepted', service: this.name, atMs: clock.now() }),
      now: () => clock.now(),
    })
    const given = this.#questions.delete(question) && !this.#stopped
    if (!given) return kept?.close()
    if (kept !== undefined) this.#keep(kept)
    this.#testify(question, result)
    this.#alarm.ring()
  }

  /** What a result says about production, and what it says about ourselves. */
  #testify(question: Question, result: ProbeResult): void {
    const { evidence, sound } = this.#options
    const { askedMs } = question
    const about = { service: this.name, atMs: this.#options.clock.now() } as const
    if (result.heard) {
      const { tookMs, said } = result
      this.#tookMs = [...this.#tookMs, tookMs].slice(-ANSWERS_REMEMBERED)
      this.#answer = { atMs: about.atMs, tookMs, said }
      this.#problem = undefined
      evidence({ kind: 'answered', ...about, askedMs, sound: sound() })
    } else if (result.because === 'garbled') {
      // Somebody is there and talks; that it is not what we expect is for a person to look at.
      this.#problem = `answers, but not as expected: ${result.said}`
      evidence({ kind: 'answered', ...about, askedMs, sound: false })
    } else if (result.because === 'not-asked') {
      this.#problem = `the appliance cannot ask: ${result.said}`
      evidence({ kind: 'unable', ...about })
    } else if (result.because === 'silent') {
      if (!question.noticed) this.#notice(question)
    } else evidence({ kind: 'refused', ...about, by: 'probe' })
  }

  /** The newest answered connection stays open until the next: when production ends it, that is news. */
  #keep(kept: Kept | undefined): void {
    const previous = this.#kept
    this.#kept = kept
    previous?.close()
    void kept?.over.then(() => {
      if (this.#kept !== kept) return
      this.#kept = undefined
      this.#options.evidence({
        kind: 'lost',
        service: this.name,
        atMs: this.#options.clock.now(),
      })
    })
  }
}
