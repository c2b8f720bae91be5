import type { Ipv4, Ipv6, MacAddress } from '../../firmware/addresses.ts'
import { macAddress } from '../../firmware/addresses.ts'
import { type ServiceName, type Settings, serviceName } from '../config.ts'

/** A protected port and the service behind it. */
export type PlannedService = { readonly name: ServiceName; readonly port: number }

/** One of production's addresses and what is protected on it. */
export type PlannedAddress = {
  readonly ipv4: Ipv4
  readonly ipv4Prefix: number
  readonly ipv6?: Ipv6
  readonly ipv6Prefix: number
  readonly vlan?: number
  readonly services: readonly PlannedService[]
}

/** Everything the wire must know of the settings: names of interfaces and namespaces, addresses, protected ports. */
export type WirePlan = {
  /** In the appliance's root namespace. */
  readonly devices: {
    readonly users: string
    readonly production: string
    readonly bridge: string
    /** Outer ends of the pairs into the service, door and client namespaces. */
    readonly service: string
    readonly door: string
    readonly client: string
    /** Root's end of the backstage pair. */
    readonly stage: string
    readonly management: string
    /** The bridge port behind `management`. */
    readonly managementPort: string
  }
  readonly namespaces: Namespaces
  readonly addresses: readonly PlannedAddress[]
  readonly gateways: Settings['production']['gateways']
  readonly management: Settings['wire']['management']
  /** Source MAC of frames that we send to production in a user's name. */
  readonly legMac: MacAddress
}

/** Network namespaces made by the wire; enter them with nsenter(1), by /run/netns/NAME. */
export type Namespaces = { readonly svc: string; readonly door: string; readonly cli: string }

const INTERFACE_NAME_MAX = 15

/** An interface name in the root namespace: the prefix gives way when the kernel's 15 characters are not enough. */
const rootName = (prefix: string, name: string) =>
  `${prefix.slice(0, INTERFACE_NAME_MAX - name.length)}${name}`

export const namespacesFor = (prefix: string): Namespaces => ({
  svc: `${prefix}svc`,
  door: `${prefix}door`,
  cli: `${prefix}cli`,
})

/** A locally administered sibling of the management MAC, so that two appliances never share one. */
const siblingOf = (mac: MacAddress): MacAddress => {
  const first = (Number.parseInt(mac.slice(0, 2), 16) ^ 0x04) | 0x02
  return macAddress(`${first.toString(16).padStart(2, '0')}${mac.slice(2)}`)
}

/** Answers what the settings ask of the wire. */
export function planFor({ production, wire }: Settings): WirePlan {
  const prefix = wire.namespacePrefix
  const name = (text: string) => rootName(prefix, text)
  const services = production.services.map((service) => ({
    name: serviceName(service),
    port: service.port,
  }))
  return {
    devices: {
      users: wire.users,
      production: wire.production,
      bridge: wire.bridge,
      service: name('svcb'),
      door: name('doorb'),
      client: name('clib'),
      stage: name('stage0'),
      management: wire.management.interface,
      managementPort: name('mgmtb'),
    },
    namespaces: namespacesFor(prefix),
    addresses: production.addresses.map(({ ipv6, vlan, ...address }) => ({
      ...address,
      ...(ipv6 === undefined ? {} : { ipv6 }),
      ...(vlan === undefined ? {} : { vlan }),
      services,
    })),
    gateways: production.gateways,
    management: wire.management,
    legMac: siblingOf(wire.management.mac),
  }
}

/** Production's addresses of one family. */
export const addressesOf = ({ addresses }: WirePlan, family: 4 | 6): readonly (Ipv4 | Ipv6)[] =>
  addresses.flatMap(({ ipv4, ipv6 }): readonly (Ipv4 | Ipv6)[] =>
    family === 4 ? [ipv4] : ipv6 === undefined ? [] : [ipv6],
  )

/** `address . port` of every protected service, or of those that `wanted` names. */
export const endpointsOf = (
  { addresses }: WirePlan,
  family: 4 | 6,
  wanted: (service: PlannedService) => boolean = () => true,
): readonly string[] =>
  addresses.flatMap(({ ipv4, ipv6, services }) => {
    const address = family === 4 ? ipv4 : ipv6
    const ports = new Set(services.filter(wanted).map(({ port }) => port))
    return address === undefined ? [] : [...ports].map((port) => `${address} . ${port}`)
  })
