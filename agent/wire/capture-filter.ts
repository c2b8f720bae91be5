import { addressesOf, type WirePlan } from './plan.ts'

// In this language `and` and `or` bind equally, from left to right: every term stands in parentheses.
const anyOf = (terms: readonly string[]) => `(${terms.join(' or ')})`

/** FIN, SYN or RST. */
const FLAGS = 7

/**
 * What tcpdump keeps: of protected services, segments that open or close something or carry data, except the
 * appliance's own. Arithmetic on headers, because pcap-filter(7) has no words for TCP over IPv6.
 */
export function captureFilter(plan: WirePlan): string {
  const ports = [
    ...new Set(plan.addresses.flatMap(({ services }) => services.map(({ port }) => port))),
  ]
  const between = (family: 4 | 6, port: (side: 'src' | 'dst', port: number) => string) => {
    const hosts = addressesOf(plan, family)
    const side = (one: 'src' | 'dst') =>
      `(${anyOf(hosts.map((host) => `${one} host ${host}`))} and ${anyOf(ports.map((p) => port(one, p)))})`
    return anyOf([side('src'), side('dst')])
  }
  const ipv4 = [
    'ip and tcp',
    between(4, (side, port) => `tcp ${side} port ${port}`),
    `(tcp[13] & ${FLAGS} != 0 or ip[2:2] - ((ip[0] & 0xf) << 2) - ((tcp[12] & 0xf0) >> 2) != 0)`,
  ]
  const ipv6 = [
    'ip6 and ip6[6] = 6',
    between(6, (side, port) => `ip6[${side === 'src' ? 40 : 42}:2] = ${port}`),
    `(ip6[53] & ${FLAGS} != 0 or ip6[4:2] - ((ip6[52] & 0xf0) >> 2) != 0)`,
  ]
  const families = [ipv4, ...(addressesOf(plan, 6).length === 0 ? [] : [ipv6])]
  const segments = anyOf(families.map((terms) => `(${terms.join(' and ')})`))
  const tagged = plan.addresses.some(({ vlan }) => vlan !== undefined)
  // `vlan` moves every offset after it, so the tagged alternative stands last.
  const wanted = tagged ? anyOf([segments, `(vlan and ${segments})`]) : segments
  return `not ether host ${plan.management.mac} and ${wanted}`
}
