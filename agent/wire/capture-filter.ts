import type { ServiceName } from '../config.ts'
import { addressesOf, type WirePlan } from './plan.ts'

// In this language `and` and `or` bind equally, from left to right: every term stands in parentheses.
const anyOf = (terms: readonly string[]) => `(${terms.join(' or ')})`

/** FIN, SYN or RST; or PSH, which stands on the last segment of whatever was said. */
const FLAGS = 15
/** Longer IP packets are the middle of a message. */
const SHORT_BYTES = 1_000
/** Of the middle, so many in 16 tell that it goes on: the third byte of the sequence number changes with each. */
const SAMPLE = 1

/**
 * What tcpdump keeps: of protected services, segments that open or close something or carry data, except the
 * appliance's own. A message that takes many segments is kept from its end and by a sample, so that a gigabit of mail
 * does not cost a processor; of SMTP, whose commands are read, everything. Arithmetic on headers, because
 * pcap-filter(7) has no words for TCP over IPv6.
 */
export function captureFilter(plan: WirePlan): string {
  const services = plan.addresses.flatMap((address) => address.services)
  const ports = [...new Set(services.map(({ port }) => port))]
  const readPorts = [
    ...new Set(services.filter(({ name }) => !isBulky(name)).map(({ port }) => port)),
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
    anyOf([
      `tcp[13] & ${FLAGS} != 0`,
      `ip[2:2] < ${SHORT_BYTES}`,
      `tcp[6] & 0xf < ${SAMPLE}`,
      ...readPorts.map((port) => `tcp port ${port}`),
    ]),
  ]
  const ipv6 = [
    'ip6 and ip6[6] = 6',
    between(6, (side, port) => `ip6[${side === 'src' ? 40 : 42}:2] = ${port}`),
    `(ip6[53] & ${FLAGS} != 0 or ip6[4:2] - ((ip6[52] & 0xf0) >> 2) != 0)`,
    anyOf([
      `ip6[53] & ${FLAGS} != 0`,
      `ip6[4:2] < ${SHORT_BYTES}`,
      `ip6[46] & 0xf < ${SAMPLE}`,
      ...readPorts.flatMap((port) => [`ip6[40:2] = ${port}`, `ip6[42:2] = ${port}`]),
    ]),
  ]
  const families = [ipv4, ...(addressesOf(plan, 6).length === 0 ? [] : [ipv6])]
  const segments = anyOf(families.map((terms) => `(${terms.join(' and ')})`))
  const tagged = plan.addresses.some(({ vlan }) => vlan !== undefined)
  // `vlan` moves every offset after it, so the tagged alternative stands last.
  const wanted = tagged ? anyOf([segments, `(vlan and ${segments})`]) : segments
  return `not ether host ${plan.management.mac} and ${wanted}`
}

/** Protocols by which whole mailboxes are read, and of which nothing but their signs of life counts. */
const isBulky = (name: ServiceName): boolean => /^(imap|pop3):/.test(name)
