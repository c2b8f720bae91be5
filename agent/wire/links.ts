import type { MacAddress } from '../../firmware/addresses.ts'
import type { Command } from '../../firmware/command.ts'
import { inNamespace } from '../../firmware/command.ts'
import type { PlannedAddress, WirePlan } from './plan.ts'

/** The root namespace's and the service's ends of the pair by which the agent reaches its own mail server. */
export const BACKSTAGE = { agent: '169.254.77.1', service: '169.254.77.2', prefix: 30 } as const

/** Interfaces of one namespace, by name. */
export type Links = ReadonlyMap<string, { readonly mac: string; readonly master?: string }>

/** What exists already. A namespace that is not there has no links. */
export type Present = {
  readonly root: Links
  readonly svc: Links
  readonly door: Links
  readonly cli: Links
  readonly namespaces: readonly string[]
}

type Room = 'root' | 'svc' | 'door' | 'cli'
/** A step: lines for `ip -batch`, or settings of the kernel for sysctl(8), in one namespace. */
type Step = { readonly room: Room; readonly ip: readonly string[] } | SysctlStep
type SysctlStep = { readonly room: Room; readonly sysctl: readonly string[] }

const ROOMS = ['svc', 'door', 'cli'] as const
/** Inner ends of the pairs into the rooms. */
const INNER = { svc: 'svc0', door: 'door0', cli: 'cli0', stage: 'stage1' } as const

/** Link-local groups that a bridge may be told to forward: all but the lowest three. */
const BRIDGE =
  'type bridge stp_state 0 forward_delay 0 mcast_snooping 0 ageing_time 30000 group_fwd_mask 0xfff8'
/** A port may be told more: LACP passes too, and only PAUSE, which is between two neighbours, stays out. */
const BRIDGE_PORT = 'type bridge_slave group_fwd_mask 0xfffd'

/** Bridged frames must not visit the host's firewall; keys that this kernel does not know are passed over. */
const ROOT_SYSCTLS = ['iptables', 'ip6tables', 'arptables'].map(
  (table) => `net/bridge/bridge-nf-call-${table}=0`,
)
const ROOM_SYSCTLS = [
  ...['all', 'default'].flatMap((scope) => [
    `net/ipv4/conf/${scope}/rp_filter=0`,
    `net/ipv6/conf/${scope}/accept_dad=0`,
    `net/ipv6/conf/${scope}/accept_ra=0`,
    `net/ipv6/conf/${scope}/router_solicitations=0`,
  ]),
  'net/ipv4/ip_nonlocal_bind=1',
  'net/ipv6/ip_nonlocal_bind=1',
]

const quiet = (device: string) => [`net/ipv6/conf/${device}/disable_ipv6=1`]

/** The device that carries an address: the inner end itself, or a VLAN device on it. */
const deviceOf = (inner: string, { vlan }: Pick<PlannedAddress, 'vlan'>): string =>
  vlan === undefined ? inner : `${inner}.${vlan}`

const devicesOf = (inner: string, { addresses }: WirePlan): readonly string[] => [
  ...new Set([inner, ...addresses.map((address) => deviceOf(inner, address))]),
]

/** Namespaces, veth pairs and what is in the rooms: everything but the bridge. */
export function roomSteps(
  plan: WirePlan,
  present: Present,
  mac: MacAddress | undefined,
): readonly Step[] {
  const { namespaces, devices } = plan
  const missing = ROOMS.filter((room) => !present.namespaces.includes(namespaces[room]))
  const pair = (outer: string, inner: string, room: (typeof ROOMS)[number]) =>
    present.root.has(outer)
      ? []
      : [`link add ${outer} type veth peer name ${inner} netns ${namespaces[room]}`]
  const outer = { svc: devices.service, door: devices.door, cli: devices.client }
  return [
    { room: 'root', ip: missing.map((room) => `netns add ${namespaces[room]}`) },
    ...ROOMS.map((room) => ({ room, sysctl: ROOM_SYSCTLS })),
    {
      room: 'root',
      ip: [
        'link set lo up',
        ...ROOMS.flatMap((room) => pair(outer[room], INNER[room], room)),
        ...pair(devices.stage, INNER.stage, 'svc'),
        `address replace ${BACKSTAGE.agent}/${BACKSTAGE.prefix} dev ${devices.stage}`,
      ],
    },
    {
      room: 'root',
      sysctl: [...Object.values(outer), devices.stage].flatMap(quiet),
    },
    {
      room: 'root',
      ip: [...Object.values(outer), devices.stage].map((device) => `link set ${device} up`),
    },
    ...ownerSteps('svc', plan, present, mac),
    ...ownerSteps('door', plan, present, mac),
    {
      room: 'svc',
      ip: [
        `address replace ${BACKSTAGE.service}/${BACKSTAGE.prefix} dev ${INNER.stage}`,
        `link set ${INNER.stage} up`,
      ],
    },
    ...clientSteps(plan, present, mac),
  ]
}

const vlanLines = (inner: string, plan: WirePlan, links: Links): readonly string[] => {
  const tags = new Set(plan.addresses.flatMap(({ vlan }) => (vlan === undefined ? [] : [vlan])))
  return [...tags]
    .filter((tag) => !links.has(`${inner}.${tag}`))
    .map((tag) => `link add link ${inner} name ${inner}.${tag} type vlan id ${tag}`)
}

/** Setting a MAC again, even to the same value, would make the kernel forget its neighbours. */
const macLines = (devices: readonly string[], links: Links, mac: string | undefined) =>
  mac === undefined
    ? []
    : devices
        .filter((device) => links.get(device)?.mac !== mac)
        .map((device) => `link set ${device} address ${mac}`)

/** A room that owns production's addresses and MAC: the service's, or the door's. */
function ownerSteps(
  room: 'svc' | 'door',
  plan: WirePlan,
  present: Present,
  mac: MacAddress | undefined,
): readonly Step[] {
  const inner = INNER[room]
  const devices = devicesOf(inner, plan)
  const addresses = plan.addresses.flatMap((address) => {
    const { ipv4, ipv4Prefix, ipv6, ipv6Prefix } = address
    const device = deviceOf(inner, address)
    return [
      `address replace ${ipv4}/${ipv4Prefix} dev ${device}`,
      ...(ipv6 === undefined ? [] : [`address replace ${ipv6}/${ipv6Prefix} dev ${device} nodad`]),
    ]
  })
  const [first] = plan.addresses
  const { ipv4, ipv6 } = plan.gateways
  const gateways = [ipv4, ipv6].flatMap((gateway) =>
    gateway === undefined || first === undefined
      ? []
      : [`route replace default via ${gateway} dev ${deviceOf(inner, first)} onlink`],
  )
  return [
    { room, ip: vlanLines(inner, plan, present[room]) },
    {
      room,
      // The rules let such an announcement out only for an address that is claimed.
      sysctl: devices.flatMap((device) => [
        `net/ipv4/conf/${device}/arp_notify=1`,
        `net/ipv6/conf/${device}/ndisc_notify=1`,
      ]),
    },
    {
      room,
      ip: [
        'link set lo up',
        ...macLines(devices, present[room], mac),
        ...addresses,
        ...devices.map((device) => `link set ${device} up`),
        ...gateways,
      ],
    },
  ]
}

/** The room where every address is ours, except production's own, which are beyond `cli0`. */
function clientSteps(
  plan: WirePlan,
  present: Present,
  mac: MacAddress | undefined,
): readonly Step[] {
  const devices = devicesOf(INNER.cli, plan)
  const routes = plan.addresses.flatMap((address) => {
    const device = deviceOf(INNER.cli, address)
    return [
      `route replace ${address.ipv4}/32 dev ${device} table local`,
      ...(address.ipv6 === undefined
        ? []
        : [`route replace ${address.ipv6}/128 dev ${device} table local`]),
    ]
  })
  return [
    { room: 'cli', ip: vlanLines(INNER.cli, plan, present.cli) },
    {
      room: 'cli',
      ip: [
        'link set lo up',
        ...macLines(devices, present.cli, plan.legMac),
        ...devices.map((device) => `link set ${device} up`),
        ...routes,
        'route replace local 0.0.0.0/0 dev lo table local',
        'route replace local ::/0 dev lo table local',
        ...neighbourLines(plan, mac),
      ],
    },
  ]
}

const neighbourLines = (plan: WirePlan, mac: MacAddress | undefined): readonly string[] =>
  plan.addresses.flatMap((address) =>
    [address.ipv4, address.ipv6].flatMap((one) =>
      one === undefined || mac === undefined
        ? []
        : [`neigh replace ${one} lladdr ${mac} dev ${deviceOf(INNER.cli, address)} nud permanent`],
    ),
  )

/** Production has another MAC: so have the rooms. */
export const followSteps = (plan: WirePlan, present: Present, mac: MacAddress): readonly Step[] => [
  ...(['svc', 'door'] as const).map((room) => ({
    room,
    ip: macLines(devicesOf(INNER[room], plan), present[room], mac),
  })),
  { room: 'cli', ip: neighbourLines(plan, mac) },
]

/** The bridge with its two networks and the appliance's own port. It has no address and sends nothing of its own. */
export function bridgeSteps(plan: WirePlan, present: Present): readonly Step[] {
  const { bridge, users, production, management, managementPort } = plan.devices
  const ports = [users, production, managementPort]
  const joins = ports
    .filter((port) => present.root.get(port)?.master !== bridge)
    .map((port) => `link set ${port} master ${bridge}`)
  return [
    {
      room: 'root',
      ip: [
        ...(present.root.has(bridge) ? [] : [`link add ${bridge} ${BRIDGE}`]),
        `link set ${bridge} ${BRIDGE}`,
        `link set ${bridge} addrgenmode none arp off`,
        ...(present.root.has(managementPort)
          ? []
          : [`link add ${managementPort} type veth peer name ${management}`]),
        ...ports.map((port) => `link set ${port} addrgenmode none`),
      ],
    },
    { room: 'root', sysctl: [...ROOT_SYSCTLS, ...[bridge, ...ports].flatMap(quiet)] },
    {
      room: 'root',
      ip: [
        `link set ${bridge} up`,
        ...joins,
        ...ports.map((port) => `link set ${port} ${BRIDGE_PORT}`),
        ...ports.map((port) => `link set ${port} up`),
      ],
    },
    ...managementSteps(plan, present),
  ]
}

function managementSteps(plan: WirePlan, present: Present): readonly Step[] {
  const { mac, ipv4, ipv6 } = plan.management
  const device = plan.devices.management
  const fixed = [ipv4 === 'dhcp' ? undefined : ipv4, ipv6].filter((one) => one !== undefined)
  return [
    {
      room: 'root',
      sysctl: [
        ...(ipv6 === undefined ? quiet(device) : [`net/ipv6/conf/${device}/accept_ra=0`]),
        `net/ipv6/conf/${device}/accept_dad=0`,
        // The appliance's inner addresses are nobody's business on the network.
        `net/ipv4/conf/${device}/arp_ignore=1`,
      ],
    },
    {
      room: 'root',
      ip: [
        ...macLines([device], present.root, mac),
        `link set ${device} up`,
        ...fixed.map(({ address, prefix }) => `address replace ${address}/${prefix} dev ${device}`),
        ...fixed.flatMap(({ gateway }) =>
          gateway === undefined ? [] : [`route replace default via ${gateway} dev ${device}`],
        ),
      ],
    },
  ]
}

/** The program that carries out a step; `undefined` when there is nothing to do. */
export function commandFor(step: Step, { namespaces }: WirePlan): Command | undefined {
  const within = (command: Command) =>
    step.room === 'root' ? command : inNamespace(namespaces[step.room], command)
  if ('sysctl' in step)
    return step.sysctl.length === 0
      ? undefined
      : within({ program: 'sysctl', args: ['-e', '-q', '-w', ...step.sysctl] })
  return step.ip.length === 0
    ? undefined
    : within({ program: 'ip', args: ['-batch', '-'], input: `${step.ip.join('\n')}\n` })
}
