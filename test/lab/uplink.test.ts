// Goal: with a real broker the documented topics arrive, also after outages, and a wrong certificate is told in words.
// Method: a private Mosquitto that demands certificates; a monitor with a session of its own sees what was published.
import { readFile } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { connect, type MqttClient } from 'mqtt'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { Uplink } from '../../agent/noc/uplink.ts'
import { startChild } from '../../firmware/child.ts'
import { quietStatus } from '../fakes/status.ts'
import { Mosquitto, type NocSettings } from './mosquitto.ts'

type Heard = { readonly topic: string; readonly retain: boolean; readonly data: Data }
type Data = Readonly<Record<string, unknown>>
type Stage = { broker: Mosquitto; heard: Heard[]; monitor: MqttClient }

const WAIT_MS = 30_000

async function until(what: string, isTrue: () => boolean): Promise<void> {
  const deadline = performance.now() + WAIT_MS
  while (!isTrue()) {
    if (performance.now() > deadline) throw new Error(`waited in vain until ${what}`)
    await delay(20)
  }
}

/** Listens to everything, in a session that the broker keeps while the monitor or the broker is away. */
async function monitorOf(noc: NocSettings, heard: Heard[]): Promise<MqttClient> {
  const [ca, cert, key] = await Promise.all(
    [noc.caFile, noc.certificateFile, noc.keyFile].map((file) => readFile(file ?? '', 'utf8')),
  )
  if (ca === undefined || cert === undefined || key === undefined) throw new Error('no files')
  const client = connect(noc.url, {
    ca,
    cert,
    key,
    clientId: 'monitor',
    clean: false,
    reconnectPeriod: 100,
    timerVariant: 'native',
  })
  client.on('error', () => {})
  client.on('message', (topic, payload, { retain }) => {
    heard.push({ topic, retain, data: JSON.parse(String(payload)) })
  })
  try {
    await until('the monitor is connected', () => client.connected)
    await client.subscribeAsync('understudy/#', { qos: 1 })
    return client
  } catch (error: unknown) {
    client.end(true)
    throw error
  }
}

/** Runs an uplink while `work` is done with it, and stops it afterwards, whatever happens. */
async function withUplink(noc: NocSettings, work: (uplink: Uplink) => Promise<void>) {
  const backoff = { leastMs: 50, mostMs: 200 }
  const uplink = new Uplink({ noc, log: () => {}, backoff })
  const stop = new AbortController()
  const ended = uplink.run(stop.signal)
  try {
    await work(uplink)
  } finally {
    stop.abort()
    await ended
  }
}

const states = (heard: readonly Heard[]) =>
  heard.filter(({ topic }) => topic.endsWith('/status')).map(({ data }) => data['state'])
const events = (heard: readonly Heard[]) =>
  heard.filter(({ topic }) => topic.endsWith('/events')).map(({ data }) => data['event'])

const test = suite<Stage>('uplink to Mosquitto')

test.before(async (stage) => {
  stage.broker = await Mosquitto.prepare()
})
test.after(({ broker }) => broker.remove())
test.before.each(async (stage) => {
  stage.heard = []
  await stage.broker.start()
  stage.monitor = await monitorOf(stage.broker.settingsFor('noc'), stage.heard)
})
test.after.each(({ monitor }) => monitor.endAsync())

test('status, info and events arrive, and a farewell at the end', async ({ broker, heard }) => {
  await withUplink(broker.settingsFor('lab-1'), async (uplink) => {
    uplink.state(quietStatus)
    uplink.event('warn', 'wire.mended', { user: 'zoe', elements: 3 })
    await until('the event arrives', () => events(heard).length > 0)
    assert.is(uplink.problem, undefined)
    uplink.state({ ...quietStatus, state: 'failover' })
    await until('the new state arrives', () => states(heard).includes('failover'))
  })
  await until('the farewell arrives', () => states(heard).at(-1) === 'offline')
  assert.equal(states(heard), ['transparent-wait', 'failover', 'offline'])
  const info = heard.find(({ topic }) => topic === 'understudy/lab-1/info')
  assert.is(info?.data['version'], '1.2.3')
  assert.not(JSON.stringify(heard).includes('zoe'))
})

test('who comes later finds status and info retained, and no old events', async (stage) => {
  await withUplink(stage.broker.settingsFor('lab-1'), async (uplink) => {
    uplink.state(quietStatus)
    uplink.event('info', 'agent.started')
    await until('the event arrives', () => events(stage.heard).includes('agent.started'))
    await stage.monitor.endAsync()
    const late: Heard[] = []
    stage.monitor = await monitorOf(stage.broker.settingsFor('noc'), late)
    await until('both are there', () => late.length >= 2)
    assert.equal(late.map(({ topic, retain }) => `${topic} ${retain}`).sort(), [
      'understudy/lab-1/info true',
      'understudy/lab-1/status true',
    ])
    assert.equal(states(late), ['transparent-wait'])
  })
})

test('an appliance that dies is offline for everybody', async ({ broker, heard }) => {
  const file = `${import.meta.dirname}/../fixtures/noc/uplink-process.ts`
  const args = [file, JSON.stringify(broker.settingsFor('lab-1'))]
  const child = startChild({ program: process.execPath, args }, { stdio: 'inherit' })
  try {
    await until('it is there', () => states(heard).at(-1) === 'transparent-wait')
  } finally {
    child.kill('SIGKILL')
  }
  await until('its will is executed', () => states(heard).at(-1) === 'offline')
})

test('events of an outage arrive after it, in order, and the status is of today', async (stage) => {
  const { broker, heard } = stage
  await withUplink(broker.settingsFor('lab-1'), async (uplink) => {
    uplink.state(quietStatus)
    uplink.event('info', 'outage.before')
    await until('all is well', () => events(heard).includes('outage.before'))
    await broker.stop()
    await until('it is noticed', () => uplink.problem?.what === 'nobody answers there')
    for (const number of [1, 2, 3]) uplink.event('warn', `outage.seen-${number}`)
    uplink.state({ ...quietStatus, state: 'initialization' })
    uplink.state({ ...quietStatus, state: 'failover' })
    await broker.start()
    await until('the last event arrives', () => events(heard).includes('outage.seen-3'))
    await until('the state arrives', () => states(heard).includes('failover'))
    assert.equal(
      events(heard).filter((name) => String(name).startsWith('outage.seen')),
      ['outage.seen-1', 'outage.seen-2', 'outage.seen-3'],
    )
    assert.not(states(heard).includes('initialization'))
    assert.is(uplink.problem, undefined)
  })
})

test('an outbox that overflowed keeps what matters and says how much is missing', async (stage) => {
  const { broker, heard } = stage
  await broker.stop()
  await withUplink(broker.settingsFor('lab-1'), async (uplink) => {
    uplink.event('error', 'disk.failed')
    for (let number = 0; number < 1_500; number += 1) uplink.event('info', 'flood.seen', { number })
    await broker.start()
    await until('the count arrives', () => events(heard).includes('telemetry.dropped'))
  })
  const dropped = heard.find(({ data }) => data['event'] === 'telemetry.dropped')
  assert.equal(dropped?.data['fields'], { events: 501 })
  assert.is(events(heard)[0], 'disk.failed')
  assert.is(events(heard).filter((name) => name === 'flood.seen').length, 998)
})

const wrong: readonly (readonly [
  what: string,
  who: string,
  trusts: 'ours' | 'others',
  RegExp,
  RegExp,
])[] = [
  [
    'a broker that another authority signed is not spoken to',
    'lab-1',
    'others',
    /certificate is not signed by the authority that we trust/,
    /^noc\.caFile \(.*others\.crt\)$/,
  ],
  [
    'an appliance that another authority signed is told so',
    'stranger',
    'ours',
    /does not accept our certificate/,
    /^noc\.certificateFile \(.*stranger\.crt\)$/,
  ],
]

for (const [what, who, trusts, problem, where] of wrong)
  test(what, async ({ broker, heard }) => {
    await withUplink(broker.settingsFor(who, trusts), async (uplink) => {
      uplink.event('info', 'secret.told')
      await until('the problem is found', () => uplink.problem !== undefined)
      assert.match(String(uplink.problem?.what), problem)
      assert.match(String(uplink.problem?.where), where)
    })
    assert.not(events(heard).includes('secret.told'))
  })

test.run()
