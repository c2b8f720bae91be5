// Goal: the text that is loaded says what the plan and the posture say, for both families and several addresses.
// Method: texts are made from settings and searched; the kernel's own view of them is in the lab.
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { settingsFrom } from '../../agent/config.ts'
import { elementsFor, macElement, ownershipOf, refreshFor } from '../../agent/wire/ownership.ts'
import { planFor } from '../../agent/wire/plan.ts'
import { fingerprintChain, rulesetFor, rulesOf } from '../../agent/wire/ruleset.ts'
import { macAddress } from '../../firmware/addresses.ts'
import { leastSettings } from '../fakes/settings.ts'

const test = suite('ruleset')

const settingsWith = (addresses: readonly object[], wire: object = {}) => {
  const least = leastSettings()
  return settingsFrom(
    {
      ...least,
      production: { ...least.production, addresses },
      wire: { ...least.wire, ...wire },
    },
    'test',
  )
}
const plan = planFor(
  settingsWith([{ ipv4: '10.77.0.2', ipv6: 'fd77:0::2' }, { ipv4: '10.77.0.3' }]),
)

test('every service of every address is protected, in both families', () => {
  const text = rulesetFor(plan)
  assert.match(
    text,
    'elements = { 10.77.0.2 . 143, 10.77.0.2 . 25, 10.77.0.3 . 143, 10.77.0.3 . 25 }',
  )
  assert.match(text, 'elements = { fd77::2 . 143, fd77::2 . 25 }')
})

test('IPv6 has every rule that IPv4 has', () => {
  const of = (family: string) =>
    rulesOf(plan).filter((rule) => rule.slice(0, rule.indexOf(':')).endsWith(family))
  assert.ok(of('4').length > 15)
  assert.equal(
    of('6').map((rule) => rule.replace('6:', ':')),
    of('4').map((rule) => rule.replace('4:', ':')),
  )
})

test('no family of addresses is needed', () => {
  const only4 = planFor(settingsWith([{ ipv4: '10.77.0.2' }]))
  assert.match(rulesetFor(only4), 'set protected6 { type ipv6_addr . inet_service; }')
  assert.equal(ownershipOf({ name: 'stand-in', frozen: true }, only4).get('divert6'), [])
})

test('another plan has another fingerprint, the same one the same', () => {
  const other = planFor(settingsWith([{ ipv4: '10.77.0.4' }]))
  assert.is.not(fingerprintChain(plan), fingerprintChain(other))
  assert.is(fingerprintChain(plan), fingerprintChain({ ...plan }))
})

test('wire owns nothing but the refusals, and holds what is suspected', () => {
  const sets = ownershipOf({ name: 'wire', held: ['imap:143'] }, plan)
  assert.equal(sets.get('divert4'), [])
  assert.equal(sets.get('claim4'), [])
  assert.equal(sets.get('hold4'), ['10.77.0.2 . 143', '10.77.0.3 . 143'])
  assert.equal(sets.get('hold6'), ['fd77::2 . 143'])
  assert.is(sets.get('guard4')?.length, 4)
})

test('standing in takes every port and claims addresses and their solicited-node groups', () => {
  const sets = ownershipOf({ name: 'stand-in', frozen: false }, plan)
  assert.is(sets.get('divert4')?.length, 4)
  assert.equal(sets.get('claim4'), ['10.77.0.2', '10.77.0.3'])
  assert.equal(sets.get('claim6'), ['fd77::2', 'ff02::1:ff00:2'])
  assert.equal(sets.get('guard4'), [])
  assert.equal(sets.get('freeze4'), [])
  assert.is(ownershipOf({ name: 'stand-in', frozen: true }, plan).get('freeze4')?.length, 4)
})

test('steering diverts nothing and keeps what is ours', () => {
  const sets = ownershipOf({ name: 'steer' }, plan)
  assert.equal(sets.get('divert4'), [])
  assert.equal(sets.get('claim4'), [])
  assert.is(sets.get('steer4')?.length, 4)
})

test('every element expires, and back on the wire the flows are forgotten', () => {
  const text = elementsFor({ name: 'stand-in', frozen: true }, plan)
  assert.match(text, 'add element netdev understudy divert6 { fd77::2 . 143 timeout 3s')
  assert.match(text, 'freeze4 { 10.77.0.2 . 143 timeout 1s')
  assert.not.match(text, 'flush set netdev understudy flows4')
  assert.match(elementsFor({ name: 'wire', held: [] }, plan), 'flush set netdev understudy flows6')
})

test('a refresh prolongs no write barrier and leaves alone what the packet path holds', () => {
  const frozen = refreshFor({ name: 'stand-in', frozen: true }, plan)
  assert.not.match(frozen, 'freeze')
  assert.match(frozen, 'flush set netdev understudy divert4\nadd element')
  const held = refreshFor({ name: 'wire', held: ['smtp:25'] }, plan)
  assert.not.match(held, 'flush set netdev understudy hold')
  assert.match(held, 'delete element netdev understudy hold6 { fd77::2 . 25 }')
  assert.not.match(held, 'flows')
})

test('the MAC address of production is an element, so that it can change under live flows', () => {
  const mac = macAddress('02:77:00:00:00:02')
  assert.match(macElement(mac), 'add element netdev understudy mac { 02:77:00:00:00:02 }')
  assert.not.match(rulesetFor(plan), mac)
})

test('a long namespace prefix still makes interface names that the kernel takes', () => {
  const { devices, namespaces } = planFor(
    settingsWith([{ ipv4: '10.77.0.2' }], { namespacePrefix: 'a-rather-long-prefix-' }),
  )
  assert.is(namespaces.svc, 'a-rather-long-prefix-svc')
  assert.is(devices.stage, 'a-rather-stage0')
  for (const name of Object.values(devices)) assert.ok(name.length <= 15, name)
})

test('the MAC address of our legs is locally administered and not the management one', () => {
  assert.is(plan.legMac, '06:00:00:77:00:02')
})

test.run()
