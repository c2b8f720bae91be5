// Goal: a settings file that cannot be used is refused with one line a problem: which setting, what is wrong, what to do.
// Method: sound settings, spoilt in one place each.
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { ConfigRejected, readSettings, settingsFrom } from '../../agent/config.ts'
import { leastSettings } from '../fakes/settings.ts'

type Spoilt = { [Key in string]: Spoilt } & { [Index in number]: Spoilt }

/** The problems of settings in which one setting, named by its path, has another value; `undefined` removes it. */
function problemsWith(path: string, value: unknown): readonly string[] {
  const data: unknown = leastSettings()
  const keys = path.split('.')
  const last = keys.pop() ?? ''
  let parent = data as Spoilt
  for (const key of keys) {
    parent[key] ??= {}
    parent = parent[key] as Spoilt
  }
  if (value === undefined) delete parent[last]
  else Object.assign(parent, { [last]: value })
  return problemsOf(() => settingsFrom(data, 'settings.json'))
}

function problemsOf(act: () => unknown): readonly string[] {
  try {
    act()
  } catch (error: unknown) {
    if (error instanceof ConfigRejected) return error.problems
    throw error
  }
  return []
}

const test = suite('settings')

test('the least settings are enough, and defaults are filled in', () => {
  const settings = settingsFrom(leastSettings(), 'settings.json')
  assert.is(settings.judgement.policy, 'default')
  assert.is(settings.production.addresses[0]?.ipv4Prefix, 24)
  assert.is(settings.production.services[0]?.essential, true)
  assert.equal(settings.serving.relay, { by: 'production' })
  assert.is(settings.noc, undefined)
})

const bad: readonly (readonly [path: string, value: unknown, problem: string])[] = [
  ['production.hostnme', 'x', 'is no setting; remove it or correct its spelling'],
  ['heartbeat', {}, 'is no setting; remove it or correct its spelling'],
  ['production.hostname', undefined, 'is missing; add it'],
  ['wire', undefined, 'is missing; add it'],
  ['production.hostname', 'mail server', 'not a host name; correct it'],
  ['production.hostname', 5, 'must be a text, not 5; correct it'],
  ['production.addresses', [], 'needs at least one entry; add it'],
  ['production.addresses.0.ipv4', '10.0.0.300', 'not an IPv4 address: 10.0.0.300; correct it'],
  ['production.addresses.0.ipv6', 'fe80::1%eth0', 'not an IPv6 address: fe80::1%eth0; correct it'],
  ['production.addresses.0.ipv4Prefix', 33, 'must be at most 32, not 33; correct it'],
  ['production.mac', '00:11:22', 'not a MAC address: 00:11:22; correct it'],
  ['production.services.0.port', '143', 'must be a number, not "143"; correct it'],
  ['production.services.0.port', 0, 'must be at least 1, not 0; correct it'],
  ['production.services.0.port', 1.5, 'must be a whole number, not 1.5; correct it'],
  [
    'production.services.0.tls',
    'ssl',
    'must be "none" or "starttls" or "implicit", not "ssl"; correct it',
  ],
  ['production.services.0.essential', 'no', 'must be true or false, not "no"; correct it'],
  ['production.tls.keyFile', 'mail.key', 'must be an absolute path; correct it'],
  ['accounts', 'all', 'must be an object, not "all"; correct it'],
  ['wire.users', 'eth0 eth1', 'not an interface name; correct it'],
  [
    'wire.management.mac',
    '33:33:00:00:00:01',
    "a group address, not one interface's MAC address: 33:33:00:00:00:01; correct it",
  ],
  ['wire.management.ipv4', 'static', 'must be "dhcp" or an object, not "static"; correct it'],
  [
    'serving.relay.by',
    'pigeon',
    'must be "production" or "mx" or "smarthost", not "pigeon"; correct it',
  ],
]

for (const [path, value, problem] of bad)
  test(`${path} as ${JSON.stringify(value)}: ${problem}`, () => {
    assert.equal(problemsWith(path, value), [`${path}: ${problem}`])
  })

test('of several shapes, the one that was meant says what is wrong in it', () => {
  assert.equal(problemsWith('wire.management.ipv4', { address: '10.77.0.2' }), [
    'wire.management.ipv4.prefix: is missing; add it',
  ])
})

test('a smarthost needs its name', () => {
  assert.equal(problemsWith('serving.relay', { by: 'smarthost' }), [
    'serving.relay.host: is missing; add it',
  ])
})

test('every problem is told, not only the first', () => {
  const found = problemsWith('noc', { url: 'http://noc.example.org', id: 'no 1' })
  assert.is(found.length, 2)
  assert.match(found[0] ?? '', /^noc\.url: must be an mqtt:\/\/ or mqtts:\/\/ address; correct it$/)
  assert.match(found[1] ?? '', /^noc\.id: /)
})

test('settings that are no object at all', () => {
  assert.equal(
    problemsOf(() => settingsFrom(null, 'settings.json')),
    ['the settings: must be an object, not null; correct it'],
  )
})

test('a file that is not there or not JSON is refused by its name', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'understudy-settings-'))
  try {
    const file = join(folder, 'settings.json')
    const refusal = () => readSettings(file).then(String, (error: unknown) => error)
    assert.match(String(await refusal()), /ENOENT.*UNDERSTUDY_SETTINGS/)
    await writeFile(file, '{ "production": ')
    const garbled = await refusal()
    assert.instance(garbled, ConfigRejected)
    assert.match(String(garbled), /not JSON/)
    assert.ok(String(garbled).includes(file))
  } finally {
    await rm(folder, { recursive: true })
  }
})

test.run()
