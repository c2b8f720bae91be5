// Goal: a service that is only suspected refuses nobody, and what passes production's cable is seen.
// Method: users ↔ appliance ↔ production as namespaces; this file runs itself again inside the appliance's.
import { setTimeout as delay } from 'node:timers/promises'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { capture, type Segment } from '../../agent/wire/capture.ts'
import { watchCarrier } from '../../agent/wire/carrier.ts'
import { Door } from '../../agent/wire/door.ts'
import { Replay } from '../../agent/wire/replay.ts'
import { listenIn, SocketFailed } from '../../agent/wire/sockets.ts'
import { Wire } from '../../agent/wire/wire.ts'
import { run } from '../../firmware/command.ts'
import {
  Actor,
  eventually,
  greetingFrom,
  insideAppliance,
  ip,
  ns,
  settings,
  V4,
  V6,
} from './wire-bed.ts'

const HELD = { name: 'wire', held: ['imap:143'] } as const
const WIRE = { name: 'wire', held: [] } as const

function tests(): void {
  const test = suite('door and capture')
  const abort = new AbortController()
  const events: string[] = []
  const log = (_: string, event: string, fields: Readonly<Record<string, unknown>> = {}) =>
    void events.push(`${event} ${JSON.stringify(fields)}`)
  const wire = new Wire({ settings, run, log })
  const door = new Door({
    settings,
    namespaces: wire.namespaces,
    log,
    connectService: (service, client) => {
      client.end(`SVC ${service.port}\n`)
      return Promise.resolve()
    },
  })
  const replay = new Replay({ settings, log })
  let segments: Segment[] = []
  let running: readonly Promise<void>[] = []
  let rearming: NodeJS.Timeout
  let users: Actor
  let production: Actor

  test.before(async () => {
    users = new Actor('users')
    production = new Actor('production')
    await production.serve('PROD', [143, 25, 22])
    await wire.prepare()
    await wire.apply(WIRE)
    rearming = setInterval(() => wire.rearm().catch(() => {}), 1_000)
    const seen = (segment: Segment) => {
      replay.segment(segment)
      segments.push({ ...segment, payload: Buffer.from(segment.payload) })
    }
    running = [
      door.run(abort.signal),
      replay.run(abort.signal),
      capture({ settings, log }, seen, abort.signal),
    ]
    await eventually('door', () => Promise.resolve(events.some((e) => e.startsWith('door.opened'))))
    await eventually('capture', async () => {
      await users.ask(V4, 143)
      return segments.length > 0
    })
  })

  test.after(async () => {
    clearInterval(rearming)
    abort.abort()
    await Promise.all(running)
    await wire.close()
    for (const actor of [users, production]) await actor.end()
  })

  test('what users and production say to each other is seen, in both families, and nothing else', async () => {
    for (const host of [V4, V6]) {
      segments = []
      const live = await users.open(host, 143)
      await live.talk('hello')
      await live.hangUp()
      const client = `${host === V4 ? '10.77.0.10' : 'fd77::10'}:${live.port}`
      const own = () => segments.filter((one) => one.client === client)
      await eventually('the end', () => Promise.resolve(own().some(({ fin }) => fin)))
      assert.ok(own().every((one) => one.service === 'imap:143'))
      assert.ok(own().every((one) => one.server === `${host}:143`))
      const told = own().map(
        ({ from, syn, ack, fin, payload }) =>
          `${from} ${syn ? (ack ? 'SYN-ACK' : 'SYN') : fin ? 'FIN' : payload.toString().trim()}`,
      )
      assert.equal(told.slice(0, 5), [
        'users SYN',
        'production SYN-ACK',
        `production ${live.line}`,
        'users hello',
        'production PROD: hello',
      ])
    }
    await delay(300)
    segments = []
    await users.ask(V4, 22)
    assert.is(await greetingFrom(V4, 143), 'PROD')
    await users.ask(V4, 25)
    await eventually('SMTP', () => Promise.resolve(segments.length > 0))
    assert.ok(segments.every(({ service }) => service === 'smtp:25'))
  })

  test('a suspected service keeps users waiting until production is found alive; it sees who they are', async () => {
    await wire.apply(HELD)
    const waiting = [
      users.open(V4, 143, '10.77.0.11', 20_000),
      users.open(V6, 143, undefined, 20_000),
    ]
    await eventually('two wait', () => Promise.resolve(door.waiting === 2))
    await wire.apply(WIRE)
    door.verdict('imap:143', 'production')
    const [first, second] = await Promise.all(waiting)
    assert.is(first?.line, `PROD 10.77.0.11 ${first?.port}`)
    assert.is(second?.line, `PROD fd77::10 ${second?.port}`)
    assert.is(door.waiting, 0)
    assert.is(await wire.liveFlows(), 0)
    for (const one of [first, second]) assert.is(await one?.talk('on'), 'PROD: on')
    await production.stop([143])
    assert.match((await first?.next()) ?? '', /^! (closed|ECONNRESET)/)
    await production.serve('PROD', [143])
  })

  test('a client that goes away is no longer waited for', async () => {
    await wire.apply(HELD)
    door.suspect('imap:143')
    const opened = users.order('open', { host: V4, port: 143, patienceMs: 200 })
    assert.is((await opened).line, '! silence')
    await eventually('nobody', () => Promise.resolve(door.waiting === 0))
    await wire.apply(WIRE)
  })

  test('a user whose SYN is refused is at the door at once, without TCP trying again', async () => {
    await production.stop([143])
    for (const host of [V4, V6]) {
      await eventually('hold ends', async () => !(await holds()))
      door.suspect('imap:143')
      const before = replay.sent
      const opening = users.open(host, 143, undefined, 20_000)
      await eventually('one waits', () => Promise.resolve(door.waiting === 1))
      door.verdict('imap:143', 'service')
      const { line, connectedMs } = await opening
      assert.is(line, 'SVC 143')
      assert.is(replay.sent, before + 1)
      process.stdout.write(`${host}: connected after ${connectedMs.toFixed(1)} ms\n`)
      assert.ok(connectedMs < 900, `${connectedMs} ms: TCP had to try again`)
    }
    await production.serve('PROD', [143])
  })

  test('a verdict that is older than the trouble does not send users into it', async () => {
    await production.stop([143])
    await wire.apply(HELD)
    door.verdict('imap:143', 'production')
    const opening = users.open(V4, 143, undefined, 20_000)
    await eventually('waits again', () => Promise.resolve(door.waiting === 1))
    door.verdict('imap:143', 'service')
    assert.is((await opening).line, 'SVC 143')
    door.suspect('imap:143')
    const refused = users.open(V4, 143, undefined, 20_000)
    await eventually('waits', () => Promise.resolve(door.waiting === 1))
    door.verdict('imap:143', 'production')
    assert.match((await refused).line, /^! /)
    await production.serve('PROD', [143])
    await wire.apply(WIRE)
  })

  test('a hundred users wait and all are served', async () => {
    door.suspect('imap:143')
    await wire.apply(HELD)
    const all = Array.from({ length: 100 }, () => users.open(V4, 143, undefined, 20_000))
    await eventually('all wait', () => Promise.resolve(door.waiting === 100))
    const begun = performance.now()
    door.verdict('imap:143', 'production')
    const lines = (await Promise.all(all)).map(
      ({ line, port }) => line === `PROD 10.77.0.10 ${port}`,
    )
    assert.is(lines.filter(Boolean).length, 100)
    process.stdout.write(`100 relayed in ${Math.round(performance.now() - begun)} ms\n`)
    for (const one of await Promise.all(all)) await one.hangUp()
    await wire.apply(WIRE)
  })

  test('a port that is taken in another namespace is an error with its name', async () => {
    try {
      await listenIn(wire.namespaces.door, { port: 143 })
      assert.unreachable()
    } catch (error: unknown) {
      assert.instance(error, SocketFailed)
      assert.is((error as SocketFailed).code, 'EADDRINUSE')
    }
    const server = await listenIn(ns('svc'), { port: 8143, host: '127.0.0.1' })
    assert.ok(server.listening)
    server.close()
  })

  test('a cable that is pulled and put back is told', async () => {
    const told: boolean[] = []
    const stop = new AbortController()
    const watching = watchCarrier(
      { interface: 'eth1', log },
      (up) => void told.push(up),
      stop.signal,
    )
    await eventually('first', () => Promise.resolve(told.length === 1))
    await delay(300)
    const begun = performance.now()
    await ip('link set eth0 down', 'production')
    await eventually('down', () => Promise.resolve(told.length === 2))
    process.stdout.write(`carrier loss known after ${Math.round(performance.now() - begun)} ms\n`)
    await ip('link set eth0 up', 'production')
    await eventually('up', () => Promise.resolve(told.length === 3))
    assert.equal(told, [true, false, true])
    stop.abort()
    await watching
  })

  test.run()
}

/** Whether the packet path holds a port at the moment. */
async function holds(): Promise<boolean> {
  for (const set of ['hold4', 'hold6']) {
    const list = { program: 'nft', args: ['list', 'set', 'netdev', 'understudy', set] }
    if ((await run(list, { timeoutMs: 5_000 })).includes('elements')) return true
  }
  return false
}

if (await insideAppliance(import.meta.url)) tests()
