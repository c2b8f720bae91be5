import type { Clock } from '../../firmware/clock.ts'
import type { Log } from '../../firmware/log.ts'
import { type Service, type ServiceName, type Settings, serviceName } from '../config.ts'
import type { Evidence } from './evidence.ts'
import {
  dueMs,
  hasReturned,
  type Judgement,
  judge,
  type Standing,
  soundSinceMs,
  unprejudiced,
  type Verdict,
} from './judgement.ts'
import { Passive, type Signal, type WireSegment } from './passive.ts'
import { POLICIES, type Terms } from './policy.ts'
import { productionReach, type Reach } from './reach.ts'
import { ServiceWatch } from './service-watch.ts'
import { SessionWatch } from './session-watch.ts'
import { Alarm, ListeningClock } from './waiting.ts'

/** A change of mind about a service of production; `atMs` is on the machine's monotonic clock. */
export type ServiceVerdict = {
  readonly service: ServiceName
  readonly verdict: 'healthy' | 'suspected' | 'failed'
  readonly because: string
  readonly atMs: number
}

export type ServiceStatus = {
  readonly service: ServiceName
  readonly essential: boolean
  readonly verdict: Verdict
  readonly because: string
  /** How long this has been the verdict. */
  readonly forMs: number
  readonly lastAnswer?: { readonly agoMs: number; readonly tookMs: number; readonly said: string }
  /** Whether the logged-in round trip works; absent where there is none. */
  readonly roundTrip?: boolean
  /** What a person should look at although it is no reason to stand in. */
  readonly problem?: string
}

/** What is thought of production, for people. */
export type HealthStatus = {
  readonly carrier: 'unknown' | 'up' | 'down'
  readonly services: readonly ServiceStatus[]
  /** While standing in: how long all essential services have answered without a break, of how long they must. */
  readonly comingBack?: { readonly soundMs: number; readonly holdMs: number }
}

export type HealthOptions = {
  readonly settings: Settings
  readonly log: Log
  readonly clock: Clock
  /** Hears each change of a verdict. It must not block: push it into a queue. */
  readonly on: (verdict: ServiceVerdict) => void
  /** While standing in: hears that production has earned its users back; again after each further hold time. */
  readonly returned: (because: string) => void
  /** The account that the admin credential opens for the logged-in round trip; none: there is no such round trip. */
  readonly account?: string
  /** The services that have answered before this process began. */
  readonly known?: readonly ServiceName[]
  readonly reach?: Reach
}

const RETURNED_EVERY_MS_MIN = 1_000

type Watched = {
  readonly service: Service
  readonly name: ServiceName
  readonly fresh: ServiceWatch
  readonly session: SessionWatch | undefined
  problem: string | undefined
}

/** Watches production by its link, by the users' traffic and by its own probes, and says what to think of it. */
export class Health {
  readonly #options: HealthOptions
  readonly #clock: ListeningClock
  readonly #alarm: Alarm
  readonly #terms: Terms
  readonly #passive: Passive
  readonly #watched: readonly Watched[]
  #judgement: Judgement
  #carrier: HealthStatus['carrier'] = 'unknown'
  #returnedMs: number | undefined
  #stopped = false

  constructor(options: HealthOptions) {
    const { settings, clock, account } = options
    const { services } = settings.production
    const { policy, holdMs } = settings.judgement
    this.#options = options
    this.#clock = new ListeningClock(clock)
    this.#alarm = new Alarm(this.#clock)
    const essential = services.filter((service) => service.essential).map(serviceName)
    this.#terms = { ...POLICIES[policy], holdMs, essential }
    this.#passive = new Passive(services, this.#terms.noticeMs)
    this.#judgement = unprejudiced(services.map(serviceName), options.known)
    const reach = options.reach ?? productionReach(settings, account)
    this.#watched = services.map((service) => this.#watch(service, reach))
    for (const { fresh, name } of this.#watched)
      fresh.pace(this.#judgement.services[name]?.verdict ?? 'unknown', false)
  }

  /** Runs until the signal aborts; then no connection is left open. */
  async run(signal: AbortSignal): Promise<void> {
    const wake = () => this.#alarm.ring()
    signal.addEventListener('abort', wake, { once: true })
    await Promise.all([
      this.#deliberate(signal),
      ...this.#watched.flatMap(({ fresh, session }) => [fresh.run(signal), session?.run(signal)]),
    ])
    signal.removeEventListener('abort', wake)
  }

  /** Hears what users and production say to each other. */
  segment(segment: WireSegment): void {
    if (this.#judgement.standingInSinceMs !== undefined) return
    const atMs = this.#clock.heard(segment.atMs)
    const signal = this.#passive.segment({ ...segment, atMs })
    if (signal !== undefined) this.#fromWire(signal)
    this.#alarm.ringBefore(this.#passive.dueMs())
  }

  /** Hears whether the second network's cable has a link. */
  carrier(up: boolean): void {
    const state = up ? 'up' : 'down'
    if (state === this.#carrier) return
    this.#carrier = state
    this.#weigh({ kind: 'carrier', up, atMs: this.#clock.now() })
  }

  /**
   * Told whether users are answered by us, wholly or in part. Then what they say to "production" is no evidence, and
   * one answer of production does not make up for a failure: it must answer for the hold time without a break.
   */
  standingIn(on: boolean): void {
    if (on === (this.#judgement.standingInSinceMs !== undefined)) return
    this.#passive.forget()
    this.#returnedMs = undefined
    this.#weigh({ kind: 'standing-in', on, atMs: this.#clock.now() })
    for (const { fresh, name } of this.#watched)
      fresh.pace(this.#judgement.services[name]?.verdict ?? 'unknown', on)
  }

  /** Says every verdict again, for somebody who did not listen before. */
  repeat(): void {
    for (const { name } of this.#watched) this.#announce(name)
  }

  status(): HealthStatus {
    const nowMs = this.#clock.now()
    const { essential, holdMs } = this.#terms
    const sinceMs = soundSinceMs(this.#judgement, essential, nowMs)
    const soundMs = sinceMs === undefined ? 0 : Math.round(nowMs - sinceMs)
    return {
      carrier: this.#carrier,
      services: this.#watched.map((watched) => this.#statusOf(watched, nowMs)),
      ...(this.#judgement.standingInSinceMs !== undefined && { comingBack: { soundMs, holdMs } }),
    }
  }

  #watch(service: Service, reach: Reach): Watched {
    const evidence = (seen: Evidence) => this.#weigh(seen)
    const [clock, policy] = [this.#clock, this.#terms]
    const open = reach.session(service)
    const session =
      open && new SessionWatch({ service, clock, noticeMs: policy.noticeMs, open, evidence })
    const sound = () => session?.loggedIn ?? true
    const ask = reach.fresh(service)
    const fresh = new ServiceWatch({ service, clock, policy, ask, sound, evidence })
    return { service, name: serviceName(service), fresh, session, problem: undefined }
  }

  /** Sleeps until the passing of time alone says something. */
  async #deliberate(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const atMs = this.#clock.now()
      for (const silence of this.#passive.silences(atMs)) this.#fromWire(silence)
      this.#weigh({ kind: 'time', atMs })
      await this.#alarm.until(Math.min(dueMs(this.#judgement, this.#terms), this.#passive.dueMs()))
    }
    this.#stopped = true
  }

  #fromWire({ service, kind, sinceMs }: Signal): void {
    const by = 'users'
    if (kind === 'silent') this.#weigh({ kind, service, by, sinceMs, atMs: this.#clock.now() })
    else this.#weigh({ kind, service, by, atMs: sinceMs })
  }

  #weigh(evidence: Evidence): void {
    if (this.#stopped) return
    const before = this.#judgement
    this.#judgement = judge(before, evidence, this.#terms)
    this.#tellPassive(evidence, before)
    this.#tellWatches(evidence, before)
    this.#lookForReturn()
    this.#alarm.ringBefore(dueMs(this.#judgement, this.#terms))
  }

  #tellPassive(evidence: Evidence, before: Judgement): void {
    if (evidence.kind === 'answered') {
      const { service, atMs } = evidence
      // Users who complained while we were not served either were right.
      const shared = before.services[service]?.unservedSinceMs !== undefined
      if (shared) this.#passive.confirmed(service)
      else this.#passive.refuted(service, atMs)
    }
    if (evidence.kind === 'alive' && evidence.by === 'session')
      this.#passive.alive(evidence.service)
  }

  #tellWatches(evidence: Evidence, before: Judgement): void {
    const standingIn = this.#judgement.standingInSinceMs !== undefined
    let doubted = false
    for (const watched of this.#watched) {
      const { name, fresh, session } = watched
      if (evidence.kind === 'answered' && evidence.service === name) session?.reachable()
      if ('service' in evidence && evidence.service === name) this.#noteProblem(watched)
      const verdict = this.#judgement.services[name]?.verdict ?? 'unknown'
      if (verdict === before.services[name]?.verdict) continue
      fresh.pace(verdict, standingIn)
      this.#announce(name)
      doubted ||= verdict === 'suspected'
    }
    // What befalls one service often befalls its host.
    if (doubted) for (const { fresh } of this.#watched) fresh.look()
  }

  #announce(service: ServiceName): void {
    const { verdict = 'unknown', because = '' } = this.#judgement.services[service] ?? {}
    if (verdict === 'unknown') return
    this.#options.on({ service, verdict, because, atMs: this.#options.clock.now() })
  }

  #lookForReturn(): void {
    const nowMs = this.#clock.now()
    const { holdMs } = this.#terms
    if (!hasReturned(this.#judgement, this.#terms, nowMs)) {
      this.#returnedMs = undefined
      return
    }
    const everyMs = Math.max(holdMs, RETURNED_EVERY_MS_MIN)
    if (this.#returnedMs !== undefined && nowMs - this.#returnedMs < everyMs) return
    this.#returnedMs = nowMs
    this.#options.returned(`all essential services have answered for ${holdMs} ms without a break`)
  }

  #noteProblem(watched: Watched): void {
    const problem = this.#problemOf(watched)
    if (problem === watched.problem) return
    watched.problem = problem
    if (problem === undefined)
      this.#options.log('info', 'probe-problem.gone', { service: watched.name })
    else this.#options.log('warn', 'probe-problem.found', { service: watched.name, problem })
  }

  #problemOf({ name, fresh, session }: Watched): string | undefined {
    if (fresh.problem !== undefined) return fresh.problem
    if (session?.problem !== undefined)
      return `the admin credential does not work: ${session.problem}. Check production.admin in the settings`
    const standing: Standing | undefined = this.#judgement.services[name]
    if (standing?.verdict === 'unknown' && Number.isFinite(standing.lifeMs))
      return "users are served, but the appliance's own probes have never been answered"
    return undefined
  }

  #statusOf(watched: Watched, nowMs: number): ServiceStatus {
    const standing = this.#judgement.services[watched.name]
    const { answer } = watched.fresh
    const problem = this.#problemOf(watched)
    return {
      service: watched.name,
      essential: watched.service.essential,
      verdict: standing?.verdict ?? 'unknown',
      because: standing?.because ?? '',
      forMs: Math.round(nowMs - (standing?.sinceMs ?? 0)),
      ...(answer !== undefined && {
        lastAnswer: {
          agoMs: Math.round(nowMs - answer.atMs),
          tookMs: Math.round(answer.tookMs * 10) / 10,
          said: answer.said,
        },
      }),
      ...(watched.session !== undefined && { roundTrip: watched.session.loggedIn }),
      ...(problem !== undefined && { problem }),
    }
  }
}
