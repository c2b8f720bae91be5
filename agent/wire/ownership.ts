import { type Ipv6, type MacAddress, solicitedNodeGroup } from '../../firmware/addresses.ts'
import type { Posture } from '../continuity/posture.ts'
import { FAMILIES, type Family } from './chains.ts'
import { addressesOf, endpointsOf, type WirePlan } from './plan.ts'
import { TABLE } from './ruleset.ts'

/** How long the kernel keeps acting for an agent that says nothing more. */
export const OWNERSHIP_SECONDS = 3
/** The longest write barrier: nobody refreshes it. */
export const FREEZE_SECONDS = 1

/** Elements that a posture wants, by the name of their set. Sets it does not want are there and empty. */
export function ownershipOf(
  posture: Posture,
  plan: WirePlan,
): ReadonlyMap<string, readonly string[]> {
  const standsIn = posture.name === 'stand-in'
  const held = posture.name === 'wire' ? posture.held : []
  const sets = FAMILIES.flatMap((family): readonly [string, readonly string[]][] => {
    const all = endpointsOf(plan, family)
    const when = (condition: boolean, elements: readonly string[]) => (condition ? elements : [])
    return [
      [`divert${family}`, when(standsIn, all)],
      [`steer${family}`, when(posture.name === 'steer', all)],
      [`guard${family}`, when(posture.name === 'wire' || posture.name === 'steer', all)],
      [`hold${family}`, endpointsOf(plan, family, ({ name }) => held.includes(name))],
      [`freeze${family}`, when(standsIn && posture.frozen, all)],
      [`claim${family}`, when(standsIn, claimed(plan, family))],
    ]
  })
  return new Map(sets)
}

/** IPv6 neighbours ask a multicast group first and the address itself later (RFC 4861 §7.3.3). */
const claimed = (plan: WirePlan, family: Family): readonly string[] =>
  family === 4
    ? addressesOf(plan, 4)
    : [...new Set(plan.addresses.flatMap(({ ipv6 }) => (ipv6 === undefined ? [] : askedAt(ipv6))))]
const askedAt = (address: Ipv6) => [address, solicitedNodeGroup(address)]

const add = (set: string, elements: readonly string[], seconds: number): string =>
  `add element ${TABLE} ${set} { ${elements.map((one) => `${one} timeout ${seconds}s`).join(', ')} }`

const secondsOf = (set: string) => (set.startsWith('freeze') ? FREEZE_SECONDS : OWNERSHIP_SECONDS)

/** Makes the kernel agree with a posture, in one transaction. */
export function elementsFor(posture: Posture, plan: WirePlan): string {
  const lines = [...ownershipOf(posture, plan)].flatMap(([set, elements]) => [
    `flush set ${TABLE} ${set}`,
    ...(elements.length === 0 ? [] : [add(set, elements, secondsOf(set))]),
  ])
  const forgotten =
    posture.name === 'wire' || posture.name === 'bare'
      ? FAMILIES.map((family) => `flush set ${TABLE} flows${family}`)
      : []
  return [...lines, ...forgotten, ''].join('\n')
}

/**
 * Gives a posture's elements their full time again. `add` alone refreshes no timeout, hence flush and add in one
 * transaction; `hold` also has elements of the packet path's own, which stay, and a write barrier is never prolonged.
 */
export function refreshFor(posture: Posture, plan: WirePlan): string {
  const lines = [...ownershipOf(posture, plan)].flatMap(([set, elements]) => {
    if (elements.length === 0 || set.startsWith('freeze')) return []
    const again = add(set, elements, OWNERSHIP_SECONDS)
    if (!set.startsWith('hold')) return [`flush set ${TABLE} ${set}`, again]
    return [again, `delete element ${TABLE} ${set} { ${elements.join(', ')} }`, again]
  })
  return [...lines, ''].join('\n')
}

/** Makes the rules know production's MAC address. */
export const macElement = (mac: MacAddress): string =>
  `flush set ${TABLE} mac\nadd element ${TABLE} mac { ${mac} }\n`
