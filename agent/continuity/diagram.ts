import { type Event, type EventName, next, resumed, type State, type StateName } from './machine.ts'

const STATES: readonly StateName[] = [
  'unconfigured',
  'initialization',
  'transparent-wait',
  'failover',
  'prepare-to-failback',
  'failback',
]

const service = 'imap:143'
const EVENTS: { readonly [Name in EventName]: Extract<Event, { name: Name }> } = {
  'production-found': { name: 'production-found' },
  'replica-complete': { name: 'replica-complete' },
  'service-suspected': { name: 'service-suspected', service },
  'service-healthy': { name: 'service-healthy', service },
  'service-failed': { name: 'service-failed', service, essential: true },
  'production-returned': { name: 'production-returned' },
  'take-over-ordered': { name: 'take-over-ordered' },
  'give-back-ordered': { name: 'give-back-ordered' },
  'back-sync-converged': { name: 'back-sync-converged' },
  'sides-agreed': { name: 'sides-agreed' },
  'barrier-missed': { name: 'barrier-missed' },
  'back-sync-refused': { name: 'back-sync-refused' },
  'flows-drained': { name: 'flows-drained' },
}

const policy = { takeOver: 'automatic', giveBack: 'automatic' } as const

/** The life cycle as a Mermaid state diagram, made by walking the machine itself. */
export function stateDiagram(): string {
  const arrows = STATES.flatMap((from) => {
    const variants: readonly State[] =
      from === 'prepare-to-failback' ? [{ name: from, barrier: true }] : [resumed(from)]
    const reasons = new Map<StateName, string[]>()
    for (const state of variants)
      for (const event of Object.values(EVENTS)) {
        const to = next(state, event, policy).name
        if (to !== from) reasons.set(to, [...(reasons.get(to) ?? []), event.name])
      }
    return [...reasons].map(([to, names]) => `  ${from} --> ${to}: ${names.join(', ')}`)
  })
  return ['stateDiagram-v2', '  [*] --> unconfigured', ...arrows].join('\n')
}
