// Goal: the data path does what every posture promises, to real kernels, for both address families.
// Method: users ↔ appliance ↔ production as namespaces; this file runs itself again inside the appliance's.
import { setTimeout as delay } from 'node:timers/promises'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { Posture } from '../../agent/continuity/posture.ts'
import { MacUnknown, Wire } from '../../agent/wire/wire.ts'
import { macAddress } from '../../firmware/addresses.ts'
import { inNamespace, run } from '../../firmware/command.ts'
import {
  Actor,
  coldCaches,
  eventually,
  greetingFrom,
  insideAppliance,
  ip,
  ns,
  PMAC,
  settings,
  V4,
  V4B,
  V6,
} from './wire-bed.ts'

const NEW_MAC = macAddress('02:77:00:00:00:22')
const WIRE: Posture = { name: 'wire', held: [] }
const STAND_IN: Posture = { name: 'stand-in', frozen: false }
const nothing = () => {}

function tests(): void {
  const test = suite('wire')
  let wire: Wire
  let users: Actor
  let production: Actor
  let service: Actor
  let door: Actor
  let rearming: NodeJS.Timeout
  const rearm = () => {
    rearming = setInterval(() => wire.rearm().catch(nothing), 1_000)
  }

  /** Each side's answer to users on every address; `ssh` stands for a port that is not protected. */
  const answers = async () => ({
    v4: await users.ask(V4, 143),
    v6: await users.ask(V6, 143),
    second: await users.ask(V4B, 25),
    ssh: await users.ask(V4, 22),
  })

  test.before(async () => {
    users = new Actor('users')
    production = new Actor('production')
    await production.serve('PROD', [143, 25, 22])
    wire = new Wire({ settings, run, log: nothing })
    const begun = performance.now()
    await wire.prepare()
    process.stdout.write(`prepared in ${Math.round(performance.now() - begun)} ms\n`)
    service = new Actor('svc')
    await service.serve('SVC', [143, 25])
    door = new Actor('door')
    await door.serve('DOOR', [143, 25])
    await wire.apply({ name: 'wire', held: [] })
    rearm()
  })

  test.after(async () => {
    clearInterval(rearming)
    await wire.close()
    for (const actor of [users, production, service, door]) await actor.end()
  })

  test('in wire everything is production, and read-back agrees', async () => {
    assert.equal(await answers(), { v4: 'PROD', v6: 'PROD', second: 'PROD', ssh: 'PROD' })
    assert.equal(await wire.verify(), [])
  })

  test('standing in, every protected port of every address is ours and nothing else is', async () => {
    await wire.apply(STAND_IN)
    assert.equal(await answers(), { v4: 'SVC', v6: 'SVC', second: 'SVC', ssh: 'PROD' })
    assert.equal(await wire.verify(), [])
  })

  test('users beyond a router are served too', async () => {
    await wire.apply(STAND_IN)
    assert.is(await users.ask(V4, 143, '10.88.0.1'), 'SVC')
    assert.is(await users.ask(V6, 143, 'fd88::1'), 'SVC')
  })

  test('the appliance itself reaches production while users do not', async () => {
    await wire.apply(STAND_IN)
    assert.is(await greetingFrom(V4, 143), 'PROD')
    assert.is(await users.ask(V4, 143), 'SVC')
  })

  test('with production dead and all caches cold, users still find us under its MAC address', async () => {
    await wire.apply(STAND_IN)
    await ip('link set eth0 down', 'production')
    await coldCaches()
    assert.is(await users.ask(V4, 143), 'SVC')
    assert.is(await users.ask(V4B, 25), 'SVC')
    assert.is(await users.ask(V6, 143), 'SVC')
    for (const address of [V4, V6])
      assert.match(await ip(`neigh show ${address} dev eth0`, 'users'), PMAC)
  })

  test('production coming back meets no address conflict and is reachable beside the protected ports', async () => {
    await ip('link set eth0 up', 'production')
    await eventually('ssh', async () => (await users.ask(V4, 22, undefined, 1_000)) === 'PROD')
    await ip(`address del ${V4}/24 dev eth0`, 'production')
    const probe = { program: 'arping', args: ['-D', '-c', '2', '-w', '2', '-I', 'eth0', V4] }
    assert.match(
      await run(inNamespace(ns('production'), probe), { timeoutMs: 5_000 }),
      'Received 0 response',
    )
    for (const one of [V4, V4B]) await ip(`address replace ${one}/24 dev eth0`, 'production')
    const dad = { program: 'sysctl', args: ['-qw', 'net.ipv6.conf.eth0.accept_dad=1'] }
    await run(inNamespace(ns('production'), dad), { timeoutMs: 5_000 })
    await ip(`address replace ${V6}/64 dev eth0`, 'production')
    await eventually(
      'DAD ends',
      async () => !/tentative/.test(await ip('-6 address show dev eth0', 'production')),
    )
    assert.not.match(await ip('-6 address show dev eth0', 'production'), 'dadfailed')
    assert.is(await users.ask(V4, 143), 'SVC')
    await wire.apply(WIRE)
    assert.equal(await answers(), { v4: 'PROD', v6: 'PROD', second: 'PROD', ssh: 'PROD' })
  })

  test('new connections to a held service wait at the door; other services and live connections do not', async () => {
    const live = await users.open(V4, 143)
    await wire.apply({ name: 'wire', held: ['imap:143'] })
    assert.equal(await answers(), { v4: 'DOOR', v6: 'DOOR', second: 'PROD', ssh: 'PROD' })
    assert.is(await live.talk('still'), 'PROD: still')
    const waiting = await users.open(V4, 143)
    await wire.apply(WIRE)
    assert.is(await users.ask(V4, 143), 'PROD')
    assert.is(await waiting.talk('here'), 'DOOR: here')
    await live.hangUp()
    await waiting.hangUp()
  })

  test('a connection that began with us finishes with us while new ones go to production', async () => {
    await wire.apply({ name: 'wire', held: ['imap:143', 'smtp:25'] })
    const held = await users.open(V6, 143)
    await wire.apply(STAND_IN)
    const ours = [await users.open(V4, 143), await users.open(V6, 143), await users.open(V4B, 25)]
    await wire.apply({ name: 'steer' })
    assert.equal(await wire.verify(), [])
    assert.equal(await answers(), { v4: 'PROD', v6: 'PROD', second: 'PROD', ssh: 'PROD' })
    for (const one of ours) assert.is(await one.talk('on'), 'SVC: on')
    assert.is(await held.talk('on'), 'DOOR: on')
    assert.is(await wire.liveFlows(), 4)
    await ours[0]?.hangUp()
    await held.hangUp()
    await eventually('two remain', async () => (await wire.liveFlows()) === 2)
    await delay(3_500)
    for (const one of ours.slice(1)) assert.is(await one.talk('late'), 'SVC: late')
    await wire.apply(WIRE)
    assert.match((await ours[1]?.talk('gone')) ?? '', /^!/)
    await ours[2]?.hangUp()
  })

  test('a write barrier stops our users and lifts by itself', async () => {
    await wire.apply(STAND_IN)
    const live = await users.open(V4, 143)
    await wire.apply({ name: 'stand-in', frozen: true })
    assert.is(await live.talk('stopped', 600), '! silence')
    assert.is(await live.next(), 'SVC: stopped')
    await wire.apply({ name: 'stand-in', frozen: true })
    await wire.apply(STAND_IN)
    assert.is(await live.talk('at once', 500), 'SVC: at once')
    await live.hangUp()
    await wire.apply(WIRE)
  })

  test('a refusal of production is never seen: the next attempt finds the door without our help', async () => {
    await production.stop([143])
    const first = await users.open(V4, 143)
    assert.is(first.line.split(' ')[0], 'DOOR')
    assert.is(await users.ask(V4, 143), 'DOOR')
    assert.is(await users.ask(V6, 143), 'DOOR')
    assert.is(await users.ask(V4B, 25), 'PROD')
    assert.match(await greetingFrom(V4, 143), 'ECONNREFUSED')
    await production.serve('PROD', [143])
    await eventually('hold ends', async () => (await users.ask(V4, 143)) === 'PROD')
    await first.hangUp()
  })

  test('when nobody re-arms, production has its users back within three seconds', async () => {
    await wire.apply(STAND_IN)
    clearInterval(rearming)
    const begun = performance.now()
    assert.is(await users.ask(V4, 143), 'SVC')
    await eventually('production', async () => (await users.ask(V4, 143)) === 'PROD')
    const tookMs = performance.now() - begun
    assert.ok(tookMs < 4_500, `took ${tookMs} ms`)
    assert.ok((await wire.verify()).some((line) => line.startsWith('divert4 lacks')))
    await production.stop([25])
    assert.is(await users.ask(V4, 25), '! ECONNREFUSED')
    await production.serve('PROD', [25])
    rearm()
    await wire.apply(WIRE)
  })

  test('a restarted agent adopts what is there and no live connection notices', async () => {
    await wire.apply(STAND_IN)
    const live = await users.open(V4, 143)
    const held = [await users.open(V6, 143)]
    const again = new Wire({ settings, run, log: nothing })
    await again.prepare(undefined, STAND_IN)
    assert.equal(await again.verify(), [])
    assert.is(await live.talk('on'), 'SVC: on')
    await again.apply({ name: 'steer' })
    await wire.apply({ name: 'steer' })
    for (const one of [live, ...held]) {
      assert.is(await one.talk('on'), 'SVC: on')
      await one.hangUp()
    }
    await again.close()
    await wire.apply(WIRE)
  })

  test('rules that somebody changed are noticed, and repaired with the flows they knew', async () => {
    await wire.apply(STAND_IN)
    const live = await users.open(V4, 143)
    const nft = (line: string) =>
      run({ program: 'nft', args: line.split(' ') }, { timeoutMs: 5_000 })
    await nft('flush chain netdev understudy production4')
    assert.equal(await wire.verify(), ['the rules of chain production4 were changed'])
    await nft(`delete element netdev understudy divert4 { ${V4} . 143 }`)
    assert.equal((await wire.verify()).at(-1), `divert4 lacks ${V4} . 143`)
    await wire.prepare()
    await wire.apply({ name: 'steer' })
    assert.equal(await wire.verify(), [])
    assert.is(await live.talk('on'), 'SVC: on')
    await live.hangUp()
    await nft('delete table netdev understudy')
    assert.equal(await wire.verify(), ['the table is missing'])
    await wire.prepare(undefined, WIRE)
    await ip('link set eth1 nomaster')
    assert.equal(await wire.verify(), ['eth1 is not a port of br0'])
    await wire.prepare()
    assert.equal(await wire.verify(), [])
  })

  test('production with another network card is followed, and users hear of it', async () => {
    await ip(`link set eth0 address ${NEW_MAC}`, 'production')
    await ip('neigh flush all', 'box')
    assert.is(await wire.productionMac(), NEW_MAC)
    await wire.apply(STAND_IN)
    assert.is(await users.ask(V6, 143), 'SVC')
    await wire.followMac(NEW_MAC)
    for (const address of [V4, V6])
      await eventually(`${address} announced`, async () =>
        (await ip(`neigh show ${address} dev eth0`, 'users')).includes(NEW_MAC),
      )
    assert.equal(await answers(), { v4: 'SVC', v6: 'SVC', second: 'SVC', ssh: 'PROD' })
    assert.equal(await wire.verify(), [])
    await wire.apply(WIRE)
    assert.equal(await answers(), { v4: 'PROD', v6: 'PROD', second: 'PROD', ssh: 'PROD' })
  })

  test('fifty switches lose no frame of anybody else', async () => {
    const ping = { program: 'ping', args: ['-q', '-i', '0.01', '-c', '200', V4] }
    const pinged = run(inNamespace(ns('users'), ping), { timeoutMs: 30_000 })
    const tookMs: number[] = []
    for (let turn = 0; turn < 50; turn += 1) {
      const begun = performance.now()
      await wire.apply(turn % 2 === 0 ? STAND_IN : WIRE)
      tookMs.push(performance.now() - begun)
      await delay(40)
    }
    assert.match(await pinged, ' 0% packet loss')
    tookMs.sort((a, b) => a - b)
    process.stdout.write(
      `switch: median ${tookMs[25]?.toFixed(1)} ms, worst ${tookMs[49]?.toFixed(1)} ms\n`,
    )
  })

  test('withdrawn, nothing remains but a bridge', async () => {
    clearInterval(rearming)
    await wire.apply(STAND_IN)
    await wire.withdraw()
    assert.equal(await answers(), { v4: 'PROD', v6: 'PROD', second: 'PROD', ssh: 'PROD' })
  })

  test('before production has been heard nothing is promised in its name', async () => {
    const { mac: _, ...production } = settings.production
    const fresh = new Wire({ settings: { ...settings, production }, run, log: nothing })
    await fresh.prepare()
    await fresh.apply(WIRE)
    try {
      await fresh.apply(STAND_IN)
      assert.unreachable()
    } catch (error: unknown) {
      assert.instance(error, MacUnknown)
    }
    const mac = await fresh.productionMac()
    assert.is(mac, NEW_MAC)
    await fresh.followMac(NEW_MAC)
    await fresh.apply(STAND_IN)
    assert.is(await users.ask(V4, 143), 'SVC')
    await fresh.withdraw()
    await fresh.close()
  })

  test.run()
}

if (await insideAppliance(import.meta.url)) tests()
