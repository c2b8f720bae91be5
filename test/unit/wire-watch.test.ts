// Goal: the words of other programs are understood: nft's read-back, ip's monitor; and tcpdump is asked rightly.
// Method: outputs recorded from nft 1.0.6 and iproute2 6.1, and expressions compiled by the real tcpdump.
import { spawnSync } from 'node:child_process'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { settingsFrom } from '../../agent/config.ts'
import { captureFilter } from '../../agent/wire/capture-filter.ts'
import { carrierIn } from '../../agent/wire/carrier.ts'
import { Lease } from '../../agent/wire/lease.ts'
import { planFor } from '../../agent/wire/plan.ts'
import { differences, parseTable } from '../../agent/wire/readback.ts'
import { CommandFailed, type Run } from '../../firmware/command.ts'
import { leastSettings } from '../fakes/settings.ts'

const test = suite('watching')

const LISTED = JSON.stringify({
  nftables: [
    { metainfo: { version: '1.0.6', json_schema_version: 1 } },
    { table: { family: 'netdev', name: 'understudy', handle: 1 } },
    {
      set: {
        family: 'netdev',
        name: 'guard4',
        table: 'understudy',
        type: ['ipv4_addr', 'inet_service'],
        flags: ['timeout'],
        elem: [{ elem: { val: { concat: ['10.77.0.2', 143] }, timeout: 3, expires: 2 } }],
      },
    },
    { set: { family: 'netdev', name: 'mac', table: 'understudy', elem: ['02:77:00:00:00:02'] } },
    { set: { family: 'netdev', name: 'hold4', table: 'understudy' } },
    { chain: { family: 'netdev', table: 'understudy', name: 'users', hook: 'ingress', prio: 0 } },
    { chain: { family: 'netdev', table: 'understudy', name: 'plan_00c0ffee' } },
    { rule: { table: 'understudy', chain: 'users', comment: 'first', expr: [{ drop: null }] } },
    { rule: { table: 'understudy', chain: 'users', expr: [{ accept: null }] } },
  ],
})
const expected = {
  rules: ['users: first', 'users: '],
  fingerprint: 'plan_00c0ffee',
  elements: new Map([
    ['guard4', ['10.77.0.2 . 143']],
    ['mac', ['02:77:00:00:00:02']],
    ['hold4', [] as readonly string[]],
  ]),
  open: (set: string) => set === 'hold4',
}

test('what is loaded is read and agrees', () => {
  assert.equal(differences(expected, parseTable(LISTED)), [])
})

test('each difference is told in one line', () => {
  const actual = parseTable(LISTED)
  assert.equal(differences(expected, undefined), ['the table is missing'])
  assert.equal(differences({ ...expected, fingerprint: 'plan_1' }, actual), [
    'the table was made from another plan',
  ])
  assert.equal(differences({ ...expected, rules: ['users: ', 'users: first'] }, actual), [
    'the rules of chain users were changed',
  ])
  const other = new Map([
    ['guard4', ['10.77.0.2 . 25']],
    ['hold4', ['10.77.0.2 . 25']],
  ])
  assert.equal(differences({ ...expected, elements: other }, actual), [
    'guard4 lacks 10.77.0.2 . 25',
    'guard4 has 10.77.0.2 . 143',
    'hold4 lacks 10.77.0.2 . 25',
  ])
})

test('the kernel’s messages say whether the cable is live', () => {
  const up =
    '4: eth1@if2: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc noqueue master br0 state UP group default'
  assert.is(carrierIn(up, 'eth1'), true)
  assert.is(carrierIn(up, 'eth0'), undefined)
  assert.is(carrierIn(up.replace('UP,LOWER_UP', 'NO-CARRIER,UP'), 'eth1'), false)
  assert.is(carrierIn(`Deleted ${up}`, 'eth1'), false)
  assert.is(carrierIn('3: eth1: <NO-CARRIER,BROADCAST,MULTICAST,UP> mtu 1500', 'eth1'), false)
  assert.is(carrierIn('    link/ether 02:77:00:00:00:02 brd ff:ff:ff:ff:ff:ff', 'eth1'), undefined)
})

const filterFor = (addresses: readonly object[]) => {
  const least = leastSettings()
  const production = { ...least.production, addresses }
  return captureFilter(planFor(settingsFrom({ ...least, production }, 'test')))
}
const compiles = (filter: string) =>
  spawnSync('tcpdump', ['-d', '-y', 'EN10MB', '-i', 'lo', filter], { encoding: 'utf8' })

test('tcpdump is asked for both directions in both families, and takes it', () => {
  const filter = filterFor([{ ipv4: '10.77.0.2', ipv6: 'fd77::2' }, { ipv4: '10.77.0.3' }])
  assert.match(filter, '(src host 10.77.0.2 or src host 10.77.0.3)')
  assert.match(filter, 'ip6[42:2] = 143')
  assert.match(filter, 'not ether host 02:00:00:77:00:02')
  const { status, stderr } = compiles(filter)
  assert.is(status, 0, stderr)
})

test('tagged frames are asked for only where an address is tagged', () => {
  assert.not.match(filterFor([{ ipv4: '10.77.0.2' }]), 'vlan')
  const tagged = filterFor([{ ipv4: '10.77.0.2' }, { ipv4: '10.20.0.2', vlan: 20 }])
  assert.match(tagged, 'or (vlan and')
  assert.is(compiles(tagged).status, 0)
})

test('a machine without a DHCP client says so', async () => {
  const events: string[] = []
  const run: Run = (command) =>
    Promise.reject(new CommandFailed(command, undefined, '', new Error('ENOENT')))
  const lease = new Lease({ device: 'mgmt0', run, log: (_, event) => void events.push(event) })
  await lease.start()
  assert.equal(events, ['management.dhcp-missing'])
  await lease.close()
})

test.run()
