// Goal: links are made as planned, what is there is left alone, and a VLAN gets a device of its own.
// Method: steps are made from a plan and from what exists, and read as lines.
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { settingsFrom } from '../../agent/config.ts'
import {
  bridgeSteps,
  commandFor,
  followSteps,
  type Present,
  roomSteps,
} from '../../agent/wire/links.ts'
import { planFor } from '../../agent/wire/plan.ts'
import { macAddress } from '../../firmware/addresses.ts'
import { leastSettings } from '../fakes/settings.ts'

const test = suite('links')

const MAC = macAddress('02:77:00:00:00:02')
const nothing: Present = {
  namespaces: [],
  root: new Map(),
  svc: new Map(),
  door: new Map(),
  cli: new Map(),
}
const planWith = (production: object = {}, management: object = {}) => {
  const least = leastSettings()
  return planFor(
    settingsFrom(
      {
        ...least,
        production: { ...least.production, ...production },
        wire: { management: { ...least.wire.management, ...management } },
      },
      'test',
    ),
  )
}
const linesOf = (steps: ReturnType<typeof roomSteps>, room?: string): readonly string[] =>
  steps
    .filter((step) => room === undefined || step.room === room)
    .flatMap((step) => ('ip' in step ? step.ip : step.sysctl))

test('on an empty machine, namespaces, pairs and addresses are made', () => {
  const plan = planWith({ addresses: [{ ipv4: '10.77.0.2', ipv6: 'fd77::2' }] })
  const root = linesOf(roomSteps(plan, nothing, MAC), 'root')
  assert.ok(root.includes('netns add svc'))
  assert.ok(root.includes('link add svcb type veth peer name svc0 netns svc'))
  assert.ok(root.includes('address replace 169.254.77.1/30 dev stage0'))
  const svc = linesOf(roomSteps(plan, nothing, MAC), 'svc')
  assert.ok(svc.includes(`link set svc0 address ${MAC}`))
  assert.ok(svc.includes('address replace 10.77.0.2/24 dev svc0'))
  assert.ok(svc.includes('address replace fd77::2/64 dev svc0 nodad'))
  const cli = linesOf(roomSteps(plan, nothing, MAC), 'cli')
  assert.ok(cli.includes('route replace local ::/0 dev lo table local'))
  assert.ok(cli.includes(`neigh replace fd77::2 lladdr ${MAC} dev cli0 nud permanent`))
})

test('what exists is neither made again nor given the MAC address it has', () => {
  const plan = planWith()
  const there = { mac: MAC, master: 'br0' }
  const present: Present = {
    namespaces: ['svc', 'door', 'cli'],
    root: new Map(
      ['br0', 'eth0', 'eth1', 'svcb', 'doorb', 'clib', 'stage0', 'mgmtb', 'mgmt0'].map((name) => [
        name,
        { ...there, ...(name === 'mgmt0' ? { mac: plan.management.mac } : {}) },
      ]),
    ),
    svc: new Map([['svc0', there]]),
    door: new Map([['door0', there]]),
    cli: new Map([['cli0', { mac: plan.legMac }]]),
  }
  const lines = [...linesOf(roomSteps(plan, present, MAC)), ...linesOf(bridgeSteps(plan, present))]
  for (const line of lines)
    assert.not.match(line, /netns add|link add|link set \S+ (address|master)/)
  const other = macAddress('02:77:00:00:00:22')
  assert.equal(linesOf(followSteps(plan, present, other), 'door'), [
    `link set door0 address ${other}`,
  ])
})

test('an address in a VLAN is on a tagged device in every room', () => {
  const plan = planWith({
    addresses: [{ ipv4: '10.77.0.2' }, { ipv4: '10.20.0.2', ipv4Prefix: 16, vlan: 20 }],
    gateways: { ipv4: '10.77.0.1' },
  })
  const svc = linesOf(roomSteps(plan, nothing, MAC), 'svc')
  assert.ok(svc.includes('link add link svc0 name svc0.20 type vlan id 20'))
  assert.ok(svc.includes(`link set svc0.20 address ${MAC}`))
  assert.ok(svc.includes('address replace 10.20.0.2/16 dev svc0.20'))
  assert.ok(svc.includes('net/ipv4/conf/svc0.20/arp_notify=1'))
  assert.ok(svc.includes('route replace default via 10.77.0.1 dev svc0 onlink'))
  assert.ok(svc.indexOf('link set svc0.20 up') > svc.indexOf('link set svc0 up'))
  const door = linesOf(roomSteps(plan, nothing, MAC), 'door')
  assert.ok(door.includes('address replace 10.20.0.2/16 dev door0.20'))
  const cli = linesOf(roomSteps(plan, nothing, MAC), 'cli')
  assert.ok(cli.includes('link add link cli0 name cli0.20 type vlan id 20'))
  assert.ok(cli.includes('route replace 10.20.0.2/32 dev cli0.20 table local'))
  assert.ok(cli.includes(`neigh replace 10.20.0.2 lladdr ${MAC} dev cli0.20 nud permanent`))
  const again = { ...nothing, svc: new Map([['svc0.20', { mac: MAC }]]) }
  assert.not.match(linesOf(roomSteps(plan, again, MAC), 'svc').join('\n'), 'link add')
})

test('the bridge is silent and forwards link-local protocols', () => {
  const lines = linesOf(bridgeSteps(planWith(), nothing))
  const bridge = lines.find((line) => line.startsWith('link add br0'))
  assert.match(bridge ?? '', 'stp_state 0 forward_delay 0 mcast_snooping 0')
  for (const line of [
    'link set br0 addrgenmode none arp off',
    'link set eth1 master br0',
    'net/ipv6/conf/eth0/disable_ipv6=1',
    'net/bridge/bridge-nf-call-arptables=0',
  ])
    assert.ok(lines.includes(line), line)
})

test('the appliance has its own port, with its own MAC address', () => {
  const fixed = planWith(
    {},
    {
      ipv4: { address: '10.77.0.9', prefix: 24, gateway: '10.77.0.1' },
      ipv6: { address: 'fd77::9', prefix: 64 },
    },
  )
  const lines = linesOf(bridgeSteps(fixed, nothing))
  for (const line of [
    'link add mgmtb type veth peer name mgmt0',
    'link set mgmtb master br0',
    'link set mgmt0 address 02:00:00:77:00:02',
    'address replace 10.77.0.9/24 dev mgmt0',
    'address replace fd77::9/64 dev mgmt0',
    'route replace default via 10.77.0.1 dev mgmt0',
  ])
    assert.ok(lines.includes(line), line)
  const leased = linesOf(bridgeSteps(planWith(), nothing))
  assert.not.match(leased.join('\n'), 'dev mgmt0')
})

test('a step is one program, run in its namespace', () => {
  const plan = planWith()
  assert.equal(commandFor({ room: 'svc', ip: ['link set lo up'] }, plan), {
    program: 'nsenter',
    args: ['--net=/run/netns/svc', 'ip', '-batch', '-'],
    input: 'link set lo up\n',
  })
  assert.equal(commandFor({ room: 'root', sysctl: ['a/b=1'] }, plan), {
    program: 'sysctl',
    args: ['-e', '-q', '-w', 'a/b=1'],
  })
  assert.is(commandFor({ room: 'root', ip: [] }, plan), undefined)
})

test.run()
