import type { Clock } from '../firmware/clock.ts'
import type { Log } from '../firmware/log.ts'
import { BoundedQueue } from '../firmware/queue.ts'
import type { ServiceName } from './config.ts'
import type { OrderResult } from './console/verbs.ts'
import {
  type Event,
  next,
  type Policy,
  postureOf,
  resumed,
  type State,
  type StateName,
} from './continuity/machine.ts'
import type { Posture } from './continuity/posture.ts'
import type { Entry } from './journal.ts'

/** An event and, in words for the journal, why it is believed. */
export type Observation = { readonly event: Event; readonly because: string }

/**
 * What goes on for as long as a state lasts: it observes and works, and tells the loop by `observe`. It ends when
 * its signal aborts; the next state's activity starts only after that.
 */
export type Activity = (signal: AbortSignal) => Promise<void>

/** Everything the loop needs of the rooms around it; a simulation gives its own. */
export type Parts = {
  readonly clock: Clock
  readonly log: Log
  readonly policy: Policy
  readonly services: readonly ServiceName[]
  readonly journal: { readonly last: Entry | undefined; enter(entry: Entry): Promise<void> }
  readonly wire: { apply(posture: Posture): Promise<void>; rearm(): Promise<void> }
  readonly door: {
    /** A verdict is to come: who arrives waits for it. */
    suspect(service: ServiceName): void
    verdict(service: ServiceName, who: 'production' | 'service'): void
  }
  readonly activities: Readonly<Partial<Record<StateName, Activity>>>
  /** Told after each turn that changed something, with what stands in the journal. */
  readonly report: (state: State, entry: Entry) => void
}

const QUEUE_MAX = 1024
const REARM_MS = 1_000

type Turn = Observation & { readonly answer?: (result: OrderResult) => void }
type Item = Turn | 'rearm'

/** The loop: observation → next state → journal → posture → reconcile → report. One observation at a time. */
export class Agent {
  readonly #parts: Parts
  readonly #queue = new BoundedQueue<Item>(QUEUE_MAX)
  #state: State
  #entry: Entry
  #activity: { readonly abort: AbortController; readonly ended: Promise<void> } | undefined
  #crashed: (error: unknown) => void = () => {}
  /** A turn whose journal entry could not be written; tried again at the next re-arming. */
  #unwritten: Turn | undefined

  constructor(parts: Parts) {
    this.#parts = parts
    this.#entry = parts.journal.last ?? {
      state: 'unconfigured',
      at: parts.clock.date().toISOString(),
      because: 'nothing is in the journal yet',
    }
    this.#state = resumed(this.#entry.state)
  }

  get state(): State {
    return this.#state
  }

  /** What the wire should do at this moment. */
  get posture(): Posture {
    return postureOf(this.#state)
  }

  /** The journal's newest entry: which state, since when, and why. */
  get entry(): Entry {
    return this.#entry
  }

  /** Observers and activities push here; they never act themselves. */
  observe(event: Event, because: string): void {
    if (!this.#queue.push({ event, because }))
      this.#parts.log('error', 'observation.refused', { name: event.name })
  }

  /** An order of a person: answered when it has been carried into the state, or refused with the reason. */
  order(
    event: Extract<Event, { name: 'take-over-ordered' | 'give-back-ordered' }>,
    because: string,
  ): Promise<OrderResult> {
    return new Promise((answer) => {
      if (!this.#queue.push({ event, because, answer }))
        answer({ accepted: false, because: 'too much is waiting to be handled; try again' })
    })
  }

  /** Runs until the signal aborts (then it resolves) or a part fails for good (then it rejects). */
  async run(signal: AbortSignal): Promise<void> {
    const own = new AbortController()
    const any = AbortSignal.any([signal, own.signal])
    this.#crashed = (error) => own.abort(error)
    await this.#parts.wire.apply(postureOf(this.#state))
    this.#startActivity(Promise.resolve())
    this.#parts.report(this.#state, this.#entry)
    const ticking = this.#tick(any)
    try {
      for (;;) await this.#turn(await this.#queue.take(any))
    } catch (error: unknown) {
      if (!signal.aborted) throw own.signal.aborted ? own.signal.reason : error
    } finally {
      own.abort()
      this.#activity?.abort.abort()
      await Promise.all([ticking, this.#activity?.ended])
    }
  }

  /** Ownership of traffic is re-armed from completed turns of this loop only: if it hangs, the wire is a wire again. */
  async #tick(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await this.#parts.clock.sleep(REARM_MS, signal).catch(() => undefined)
      if (!signal.aborted) this.#queue.push('rearm')
    }
  }

  async #turn(item: Item): Promise<void> {
    if (item !== 'rearm') return this.#handle(item)
    await this.#parts.wire.rearm()
    const again = this.#unwritten
    this.#unwritten = undefined
    if (again !== undefined) await this.#handle(again)
  }

  async #handle(turn: Turn): Promise<void> {
    const before = this.#state
    const after = next(before, turn.event, this.#parts.policy)
    if (after === before) {
      this.#parts.log('debug', 'event.ignored', { name: turn.event.name, state: before.name })
      turn.answer?.({ accepted: false, because: refusal(before, turn.event) })
      return
    }
    if (after.name !== before.name && !(await this.#enter(after.name, turn))) return
    this.#state = after
    await this.#parts.wire.apply(postureOf(after))
    this.#tellDoor(before, after)
    if (after.name !== before.name) this.#changeActivity()
    this.#parts.report(after, this.#entry)
    turn.answer?.({ accepted: true })
  }

  /** The journal first: a restart at any later instant finds the state that the wire may already show. */
  async #enter(state: StateName, turn: Turn): Promise<boolean> {
    const { because } = turn
    const entry = { state, at: this.#parts.clock.date().toISOString(), because }
    try {
      await this.#parts.journal.enter(entry)
    } catch (error: unknown) {
      const problem = error instanceof Error ? error.message : String(error)
      this.#parts.log('error', 'journal.refused', { state, problem })
      // An order that was refused is not carried out later, behind a person's back.
      if (turn.answer === undefined) this.#unwritten = turn
      else turn.answer({ accepted: false, because: `the journal cannot be written: ${problem}` })
      return false
    }
    this.#entry = entry
    this.#parts.log('info', `${state}.entered`, { because })
    return true
  }

  #tellDoor(before: State, after: State): void {
    const held = (state: State) => (state.name === 'transparent-wait' ? state.suspected : [])
    if (postureOf(after).name === 'stand-in') {
      for (const service of this.#parts.services) this.#parts.door.verdict(service, 'service')
      return
    }
    for (const service of held(after))
      if (!held(before).includes(service)) this.#parts.door.suspect(service)
    const still = new Set(held(after))
    const released = postureOf(before).name === 'stand-in' ? this.#parts.services : held(before)
    for (const service of released)
      if (!still.has(service)) this.#parts.door.verdict(service, 'production')
  }

  #changeActivity(): void {
    const previous = this.#activity
    previous?.abort.abort()
    this.#startActivity(previous?.ended ?? Promise.resolve())
  }

  #startActivity(after: Promise<void>): void {
    const activity = this.#parts.activities[this.#state.name]
    const abort = new AbortController()
    const ended = after.then(async () => {
      if (activity === undefined || abort.signal.aborted) return
      try {
        await activity(abort.signal)
      } catch (error: unknown) {
        if (!abort.signal.aborted) this.#crashed(error)
      }
    })
    this.#activity = { abort, ended }
  }
}

const refusal = (state: State, event: Event): string => {
  if (event.name === 'take-over-ordered')
    return state.name === 'failover'
      ? 'the appliance is standing in already'
      : 'the replica is not complete yet, and a half-copied mailbox is never shown'
  return `there is nothing to give back: the state is ${state.name}`
}
