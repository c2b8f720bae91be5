import type { ServiceName } from '../config.ts'
import type { Posture } from './posture.ts'

/**
 * Where the appliance stands in its life cycle (US patent 9448898: initialization, transparent wait, failover,
 * prepare-to-failback, failback), with the data that only that state has.
 */
export type State =
  | { readonly name: 'unconfigured' }
  | { readonly name: 'initialization' }
  | { readonly name: 'transparent-wait'; readonly suspected: readonly ServiceName[] }
  | { readonly name: 'failover' }
  | { readonly name: 'prepare-to-failback'; readonly barrier: boolean }
  | { readonly name: 'failback' }

export type StateName = State['name']

/** What happened, as far as the life cycle is concerned. */
export type Event =
  /** Settings are complete and production has answered. */
  | { readonly name: 'production-found' }
  /** Every protected account is complete, or set aside after failing; at least one is complete. */
  | { readonly name: 'replica-complete' }
  | { readonly name: 'service-suspected'; readonly service: ServiceName }
  | { readonly name: 'service-healthy'; readonly service: ServiceName }
  | { readonly name: 'service-failed'; readonly service: ServiceName; readonly essential: boolean }
  /** All essential services have answered without a break for the hold time. */
  | { readonly name: 'production-returned' }
  | { readonly name: 'take-over-ordered' }
  | { readonly name: 'give-back-ordered' }
  /** Back-sync has so little left that the rest fits into the write barrier. */
  | { readonly name: 'back-sync-converged' }
  /** Under the barrier both sides were made equal, and shown to be. */
  | { readonly name: 'sides-agreed' }
  /** The barrier's time ran out, or something stood in the way: go on without it. */
  | { readonly name: 'barrier-missed' }
  /** Production went away, or is a stranger: back-sync cannot go on. */
  | { readonly name: 'back-sync-refused' }
  /** No flow is ours any more and both sides agree. */
  | { readonly name: 'flows-drained' }

export type EventName = Event['name']

/** What the administrator decided about who may move the life cycle. */
export type Policy = {
  readonly takeOver: 'automatic' | 'by-order'
  readonly giveBack: 'automatic' | 'by-order'
}

type Named<Name extends StateName> = Extract<State, { name: Name }>
type Transition<Name extends StateName> = (
  state: Named<Name>,
  event: Event,
  policy: Policy,
) => State

const wait: State = { name: 'transparent-wait', suspected: [] }
const failover: State = { name: 'failover' }
const prepare: State = { name: 'prepare-to-failback', barrier: false }

const failed = (event: Event, policy: Policy): boolean =>
  event.name === 'service-failed' && event.essential && policy.takeOver === 'automatic'

const suspect = (state: Named<'transparent-wait'>, service: ServiceName): State =>
  state.suspected.includes(service)
    ? state
    : { ...state, suspected: [...state.suspected, service].sort() }

const trust = (state: Named<'transparent-wait'>, service: ServiceName): State =>
  state.suspected.includes(service)
    ? { ...state, suspected: state.suspected.filter((other) => other !== service) }
    : state

/** One function a state; leaving a state out does not compile. */
const on: { [Name in StateName]: Transition<Name> } = {
  unconfigured: (state, event) =>
    event.name === 'production-found' ? { name: 'initialization' } : state,

  initialization: (state, event) => (event.name === 'replica-complete' ? wait : state),

  'transparent-wait': (state, event, policy) => {
    if (event.name === 'take-over-ordered' || failed(event, policy)) return failover
    if (event.name === 'service-suspected' || event.name === 'service-failed')
      return suspect(state, event.service)
    return event.name === 'service-healthy' ? trust(state, event.service) : state
  },

  failover: (state, event, policy) => {
    if (event.name === 'give-back-ordered') return prepare
    return event.name === 'production-returned' && policy.giveBack === 'automatic' ? prepare : state
  },

  'prepare-to-failback': (state, event) => {
    if (event.name === 'take-over-ordered' || event.name === 'back-sync-refused') return failover
    if (event.name === 'service-failed' && event.essential) return failover
    if (event.name === 'back-sync-converged') return { ...state, barrier: true }
    if (event.name === 'barrier-missed') return prepare
    return event.name === 'sides-agreed' && state.barrier ? { name: 'failback' } : state
  },

  failback: (state, event, policy) => {
    if (event.name === 'take-over-ordered' || failed(event, policy)) return failover
    return event.name === 'flows-drained' ? wait : state
  },
}

/** The state that follows. Pure: same arguments, same answer; an event that means nothing here changes nothing. */
export function next(state: State, event: Event, policy: Policy): State {
  return on[state.name](state as never, event, policy)
}

/** What the wire must do in a state; the reconciler makes the kernel agree. */
export function postureOf(state: State): Posture {
  switch (state.name) {
    case 'unconfigured':
    case 'initialization':
      return { name: 'bare' }
    case 'transparent-wait':
      return { name: 'wire', held: state.suspected }
    case 'failover':
      return { name: 'stand-in', frozen: false }
    case 'prepare-to-failback':
      return { name: 'stand-in', frozen: state.barrier }
    case 'failback':
      return { name: 'steer' }
  }
}

/** Whether users are answered by us, wholly or in part. */
export const standsIn = (state: State): boolean =>
  ['stand-in', 'steer'].includes(postureOf(state).name)

/** The state to resume after a restart: suspicions and a write barrier do not outlive the process that had them. */
export function resumed(name: StateName): State {
  switch (name) {
    case 'transparent-wait':
      return wait
    case 'prepare-to-failback':
      return prepare
    default:
      return { name }
  }
}
