import { type Chain, chainsFor, FAMILIES, type Family } from './chains.ts'
import { addressesOf, endpointsOf, type WirePlan } from './plan.ts'

/** The one table that is ours; nobody else's rules are touched. */
export const TABLE = 'netdev understudy'

/** A flow without a frame for this long is forgotten; keep-alive of both ends is more frequent. */
const FLOW_TIMEOUT = '1h'
const FLOWS_MAX = 65_535
const HELD_FLOWS_MAX = 16_384

/** Sets that the packet path fills itself, and that a new table takes over from the old one. */
export const FLOW_SETS = FAMILIES.flatMap((family) =>
  ['flows', 'hflows', 'pflows'].map((name) => `${name}${family}`),
)

const chainText = ({ name, hook, rules }: Chain): string => {
  const strict = name === 'service' || name === 'door' || name === 'client'
  const base = `    type filter hook ingress device "${hook}" priority 0; policy ${strict ? 'drop' : 'accept'};`
  return [
    `  chain ${name} {`,
    ...(hook === undefined ? [] : [base]),
    ...rules.map(({ rule: text, why }) => `    ${text} comment "${why}"`),
    '  }',
  ].join('\n')
}

const setText = (name: string, body: string, elements: readonly string[] = []): string =>
  `  set ${name} { ${body}${elements.length === 0 ? '' : ` elements = { ${elements.join(', ')} };`} }`

/** Sets that a plan fills once and for all. */
export function fixedElements(plan: WirePlan): ReadonlyMap<string, readonly string[]> {
  const { ipv4, ipv6 } = plan.management
  const own = { 4: ipv4 === 'dhcp' ? [] : [ipv4.address], 6: ipv6 ? [ipv6.address] : [] }
  return new Map(
    FAMILIES.flatMap((family): readonly [string, readonly string[]][] => [
      [`protected${family}`, endpointsOf(plan, family)],
      [`production${family}`, addressesOf(plan, family)],
      [`management${family}`, own[family]],
    ]),
  )
}

function setsFor(plan: WirePlan, family: Family): readonly string[] {
  const address = `ipv${family}_addr`
  const endpoint = `type ${address} . inet_service;`
  const flow = `type ${address} . inet_service . ${address} . inet_service; flags dynamic,timeout; timeout ${FLOW_TIMEOUT};`
  const fixed = fixedElements(plan)
  const filled = (name: string, type: string) =>
    setText(`${name}${family}`, type, fixed.get(`${name}${family}`))
  return [
    filled('protected', endpoint),
    filled('production', `type ${address};`),
    filled('management', `type ${address};`),
    ...['divert', 'steer', 'guard', 'freeze'].map((name) =>
      setText(`${name}${family}`, `${endpoint} flags timeout;`),
    ),
    setText(`hold${family}`, `${endpoint} flags dynamic,timeout; size ${HELD_FLOWS_MAX};`),
    setText(`claim${family}`, `type ${address}; flags timeout;`),
    setText(`flows${family}`, `${flow} size ${FLOWS_MAX};`),
    setText(`hflows${family}`, `${flow} size ${HELD_FLOWS_MAX};`),
    setText(`pflows${family}`, `${flow} size ${HELD_FLOWS_MAX};`),
  ]
}

/** FNV-1a: tells one table's text from another's, nothing more. */
const fingerprintOf = (text: string): string => {
  let hash = 0x811c9dc5
  for (const letter of text) hash = Math.imul(hash ^ (letter.codePointAt(0) ?? 0), 0x01000193)
  return (hash >>> 0).toString(16).padStart(8, '0')
}

const bodyOf = (plan: WirePlan): string =>
  [
    '  set mac { type ether_addr; }',
    ...FAMILIES.flatMap((family) => setsFor(plan, family)),
    ...chainsFor(plan).map(chainText),
  ].join('\n')

/** Name of the empty chain by which a loaded table says what it was made from. */
export const fingerprintChain = (plan: WirePlan): string => `plan_${fingerprintOf(bodyOf(plan))}`

/**
 * The whole table, replaced in one transaction. Ingress hooks only: no connection tracking, no routing rules, no
 * rewriting of addresses. It does nothing until elements say what is ours. nft(8), one text for `nft -f -`.
 */
export const rulesetFor = (plan: WirePlan): string =>
  [
    `table ${TABLE} { }`,
    `delete table ${TABLE}`,
    `table ${TABLE} {`,
    bodyOf(plan),
    `  chain ${fingerprintChain(plan)} { }`,
    '}',
    '',
  ].join('\n')

/** What read-back must find: each rule as its chain and comment, in order. */
export const rulesOf = (plan: WirePlan): readonly string[] =>
  chainsFor(plan).flatMap(({ name, rules }) => rules.map(({ why }) => `${name}: ${why}`))
