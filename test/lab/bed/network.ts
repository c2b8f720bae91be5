import { CommandFailed } from '../../../firmware/command.ts'
import { BROKER, MANAGEMENT, namespaceOf, PRODUCTION, ROLES, USERS } from './plan.ts'
import { processesIn, signalAll } from './processes.ts'
import { here, inside } from './tools.ts'

const QUIET_IPV6 = [
  'net.ipv6.conf.all.accept_dad=0',
  'net.ipv6.conf.default.accept_dad=0',
  'net.ipv6.conf.default.router_solicitations=0',
]

/** Cables users ↔ appliance ↔ production. The appliance's two ends are up, bare and not bridged. */
export async function makeNetwork(prefix: string): Promise<void> {
  const [users, appliance, production] = [
    namespaceOf(prefix, 'users'),
    namespaceOf(prefix, 'appliance'),
    namespaceOf(prefix, 'production'),
  ]
  for (const role of ROLES) await makeNamespace(namespaceOf(prefix, role))
  await ip([
    `link add eth0 netns ${users} address ${USERS.mac} type veth peer name eth0 netns ${appliance}`,
    `link add eth0 netns ${production} address ${PRODUCTION.mac} type veth peer name eth1 netns ${appliance}`,
  ])
  await ip(
    [
      ...USERS.ipv4.map((address) => `addr add ${address}/24 dev eth0`),
      `addr add ${BROKER.ipv4}/24 dev eth0`,
      `addr add ${USERS.ipv6}/64 dev eth0 nodad`,
      'link set eth0 up',
    ],
    users,
  )
  await ip([`addr add ${PRODUCTION.ipv4}/24 dev eth0`, ...productionUp()], production)
  await ip(['link set eth0 up', 'link set eth1 up'], appliance)
}

async function makeNamespace(name: string): Promise<void> {
  await here('ip', ['netns', 'add', name])
  await inside(name, 'sysctl', ['-qw', ...QUIET_IPV6])
  await ip(['link set lo up'], name)
}

/** A namespace's link going down loses its IPv6 addresses; its IPv4 ones stay. */
const productionUp = (): string[] => [
  'link set eth0 up',
  `addr replace ${PRODUCTION.ipv6}/64 dev eth0 nodad`,
]

/** Takes production's only link down, as a pulled cable or a dead machine does. */
export const linkDown = (prefix: string): Promise<void> =>
  ip(['link set eth0 down'], namespaceOf(prefix, 'production'))

/** Production's link up again, with the addresses it had. */
export const linkUp = (prefix: string): Promise<void> =>
  ip(productionUp(), namespaceOf(prefix, 'production'))

const DROP_ALL = `
table netdev lab {
  chain in { type filter hook ingress device eth0 priority 0; policy drop; }
  chain out { type filter hook egress device eth0 priority 0; policy drop; }
}
`

/** Production's link stays up, but not one frame passes it in either direction. */
export async function dropAll(prefix: string): Promise<void> {
  await passAll(prefix)
  await inside(namespaceOf(prefix, 'production'), 'nft', ['-f', '-'], DROP_ALL)
}

/** Undoes `dropAll`, also where nothing is dropped. */
export async function passAll(prefix: string): Promise<void> {
  const undo = 'add table netdev lab\ndelete table netdev lab\n'
  await inside(namespaceOf(prefix, 'production'), 'nft', ['-f', '-'], undo)
}

/** Stands in the appliance's place: a plain bridge with the management address on it. */
export async function makePlainBridge(prefix: string): Promise<void> {
  await ip(
    [
      'link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0',
      'link set eth0 master br0',
      'link set eth1 master br0',
      `link set br0 address ${MANAGEMENT.mac} up`,
      `addr add ${MANAGEMENT.ipv4}/24 dev br0`,
      `addr add ${MANAGEMENT.ipv6}/64 dev br0 nodad`,
    ],
    namespaceOf(prefix, 'appliance'),
  )
}

/** The namespaces that carry a bed's prefix: its three, and those the appliance made. */
export async function namespacesWith(prefix: string): Promise<string[]> {
  const listed: unknown = JSON.parse((await here('ip', ['-j', 'netns', 'list'])) || '[]')
  if (!Array.isArray(listed)) return []
  return listed
    .map((entry: { name?: unknown }) => String(entry.name))
    .filter((name) => name.startsWith(prefix))
}

/** Ends every process in a bed's namespaces, then removes the namespaces. Others' processes cannot be met there. */
export async function removeNetwork(prefix: string): Promise<void> {
  const namespaces = await namespacesWith(prefix)
  const everybody = async () => (await Promise.all(namespaces.map(processesIn))).flat()
  await signalAll(everybody, 'SIGKILL')
  for (const name of namespaces) await removeNamespace(name)
}

async function removeNamespace(name: string): Promise<void> {
  try {
    await here('ip', ['netns', 'del', name])
  } catch (error: unknown) {
    const goneAlready = error instanceof CommandFailed && error.stderr.includes('No such file')
    if (!goneAlready) throw error
  }
}

const ip = async (lines: readonly string[], namespace?: string): Promise<void> => {
  const where = namespace === undefined ? [] : ['-n', namespace]
  await here('ip', [...where, '-batch', '-'], lines.join('\n'))
}
