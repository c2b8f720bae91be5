import type { WirePlan } from './plan.ts'

/** Address families; a set or chain of one carries its number at the end of its name. */
export type Family = 4 | 6
export const FAMILIES: readonly Family[] = [4, 6]

/** How long a refusal alone holds its port at the door. */
const REFUSAL_HOLD_SECONDS = 2

/** A rule and why it is there; the reason is loaded as its comment, for read-back and for people. */
export type Rule = { readonly rule: string; readonly why: string }
/** A chain; with a `hook` it sees the frames that arrive on that device. */
export type Chain = {
  readonly name: string
  readonly hook?: string
  readonly rules: readonly Rule[]
}

const rule = (text: string, why: string): Rule => ({ rule: text, why })

/** The words of one address family, so that both families get the same rules. */
function words(family: Family) {
  const ip = family === 4 ? 'ip' : 'ip6'
  return {
    /** On the way to production: its address and port, and the whole flow. */
    to: `${ip} daddr . tcp dport`,
    flow: `${ip} saddr . tcp sport . ${ip} daddr . tcp dport`,
    /** The same on the way back. */
    from: `${ip} saddr . tcp sport`,
    flowBack: `${ip} daddr . tcp dport . ${ip} saddr . tcp sport`,
    set: (name: string) => `@${name}${family}`,
  }
}

const SYN = 'tcp flags & (syn|ack) == syn'
/** How a kernel refuses a SYN (RFC 9293 §3.10.7.1). */
const REFUSAL = 'tcp flags & (rst|ack) == (rst|ack) tcp sequence 0'

/** Frames of users, as they arrive on the first network. */
function usersChain({ devices }: WirePlan): Chain {
  const answers = [devices.service, devices.door]
  return {
    name: 'users',
    hook: devices.users,
    rules: [
      ...FAMILIES.map((family) => {
        const { to, set } = words(family)
        return rule(`${to} ${set('protected')} jump users${family}`, 'protected service')
      }),
      rule(
        `arp operation request arp daddr ip @claim4 dup to "${devices.service}"`,
        'claimed IPv4',
      ),
      ...answers.map((device) =>
        rule(`arp operation reply ether daddr @mac dup to "${device}"`, `ARP answer to ${device}`),
      ),
      rule(
        `icmpv6 type nd-neighbor-solicit ip6 daddr @claim6 dup to "${devices.service}"`,
        'claimed IPv6',
      ),
      ...answers.map((device) =>
        rule(
          `icmpv6 type nd-neighbor-advert ether daddr @mac dup to "${device}"`,
          `ND answer to ${device}`,
        ),
      ),
    ],
  }
}

/** Who gets a user's segment to a protected port. */
function userFlowChains(family: Family, { devices }: WirePlan): readonly Chain[] {
  const { to, flow, set } = words(family)
  const forget = (name: string) =>
    rule(`delete ${set(name)} { ${flow} }`, `new connection leaves ${name}`)
  return [
    {
      name: `ours${family}`,
      rules: [
        rule(`update ${set('flows')} { ${flow} }`, 'remember whose it is'),
        rule(`fwd to "${devices.service}"`, 'to the service'),
      ],
    },
    {
      name: `new${family}`,
      rules: [
        rule(`${to} ${set('divert')} delete ${set('hflows')} { ${flow} }`, 'not the door'),
        rule(`${to} ${set('divert')} goto ours${family}`, 'we stand in'),
        rule(`${to} ${set('hold')} delete ${set('flows')} { ${flow} }`, 'not the service'),
        rule(
          `${to} ${set('hold')} update ${set('hflows')} { ${flow} } fwd to "${devices.door}"`,
          'suspected: wait at the door',
        ),
        forget('flows'),
        forget('hflows'),
        forget('pflows'),
        rule('accept', 'to production'),
      ],
    },
    {
      name: `users${family}`,
      rules: [
        rule(`${to} ${set('freeze')} drop`, 'write barrier'),
        rule(`${SYN} jump new${family}`, 'new connection'),
        rule(
          `${flow} ${set('hflows')} update ${set('hflows')} { ${flow} } fwd to "${devices.door}"`,
          'live at the door',
        ),
        rule(`${to} ${set('divert')} goto ours${family}`, 'we stand in'),
        rule(
          `${to} ${set('steer')} ${flow} ${set('flows')} goto ours${family}`,
          'finishes with us',
        ),
      ],
    },
  ]
}

/** Frames of production, as they arrive on the second network. */
function productionChain({ devices }: WirePlan): Chain {
  return {
    name: 'production',
    hook: devices.production,
    rules: [
      rule(
        `arp operation reply arp saddr ip @production4 dup to "${devices.client}"`,
        'ARP answer to our leg',
      ),
      rule(
        `icmpv6 type nd-neighbor-advert ip6 saddr @production6 dup to "${devices.client}"`,
        'ND answer to our leg',
      ),
      ...FAMILIES.map((family) => {
        const { from, set } = words(family)
        return rule(`${from} ${set('protected')} jump production${family}`, 'protected service')
      }),
    ],
  }
}

/** Which of production's segments may reach a user. */
function productionFlowChains(family: Family, plan: WirePlan): readonly Chain[] {
  const { from, flowBack, set } = words(family)
  const ip = family === 4 ? 'ip' : 'ip6'
  const hold = `update ${set('hold')} { ${from} timeout ${REFUSAL_HOLD_SECONDS}s }`
  return [
    {
      name: `refused${family}`,
      rules: [
        rule(`update ${set('hflows')} { ${flowBack} }`, 'its SYN is replayed to the door'),
        rule(hold, 'the next ones wait there'),
        rule('drop', 'nobody sees the refusal'),
      ],
    },
    {
      name: `production${family}`,
      rules: [
        rule(
          `${flowBack} ${set('pflows')} ether daddr set ${plan.legMac} fwd to "${plan.devices.client}"`,
          'answer to our leg',
        ),
        rule(`ether daddr ${plan.management.mac} accept`, 'answer to the appliance'),
        rule(`${ip} daddr ${set('management')} accept`, 'answer to the appliance, routed'),
        rule(`${REFUSAL} ${from} ${set('guard')} goto refused${family}`, 'refusal'),
        rule(`${from} ${set('divert')} drop`, 'we stand in'),
        rule(`${flowBack} ${set('hflows')} drop`, 'live at the door'),
        rule(`${from} ${set('steer')} ${flowBack} ${set('flows')} drop`, 'finishes with us'),
      ],
    },
  ]
}

const neverRefuse = rule(`${REFUSAL} drop`, 'while we restart, a user tries again')

/** What leaves the namespaces that own production's addresses. Anything not named stays inside. */
function ownChains({ devices }: WirePlan): readonly Chain[] {
  const out = `fwd to "${devices.users}"`
  const segments = FAMILIES.map((family) => {
    const { from, set } = words(family)
    return rule(`${from} ${set('protected')} ${out}`, 'to the user')
  })
  const asks = [
    rule(`arp operation request arp daddr ip != @production4 ${out}`, 'looks for a user'),
    rule(`icmpv6 type nd-neighbor-solicit ${out}`, 'looks for a user'),
  ]
  return [
    {
      name: 'service',
      hook: devices.service,
      rules: [
        neverRefuse,
        ...segments,
        ...asks,
        rule(`arp operation request arp daddr ip @claim4 ${out}`, 'announces a claimed IPv4'),
        rule(`arp operation reply arp saddr ip @claim4 ${out}`, 'answers for a claimed IPv4'),
        rule(
          `icmpv6 type nd-neighbor-advert ip6 saddr @claim6 ${out}`,
          'answers for a claimed IPv6',
        ),
      ],
    },
    { name: 'door', hook: devices.door, rules: [neverRefuse, ...segments, ...asks] },
  ]
}

/** What our legs, which use the users' own addresses, may send to production. */
function clientChain({ devices }: WirePlan): Chain {
  const out = `fwd to "${devices.production}"`
  return {
    name: 'client',
    hook: devices.client,
    rules: [
      rule(`arp operation request ${out}`, 'looks for production'),
      rule(`icmpv6 type nd-neighbor-solicit ${out}`, 'looks for production'),
      ...FAMILIES.flatMap((family) => {
        const { to, flow, set } = words(family)
        return [
          rule(
            `${to} ${set('protected')} ${SYN} update ${set('pflows')} { ${flow} }`,
            'a leg begins',
          ),
          rule(
            `${flow} ${set('pflows')} update ${set('pflows')} { ${flow} } ${out}`,
            'to production',
          ),
        ]
      }),
    ],
  }
}

/** In an order in which every chain is known before another one jumps to it. */
export const chainsFor = (plan: WirePlan): readonly Chain[] => [
  ...FAMILIES.flatMap((family) => userFlowChains(family, plan)),
  ...FAMILIES.flatMap((family) => productionFlowChains(family, plan)),
  usersChain(plan),
  productionChain(plan),
  ...ownChains(plan),
  clientChain(plan),
]
