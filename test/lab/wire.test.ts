// Goal: the data path does what every posture promises, to real kernels, for both address families.
// Method: users ↔ appliance ↔ production as namespaces; this file runs itself again inside the appliance's.
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { connect } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { settingsFrom } from '../../agent/config.ts'
import type { Posture } from '../../agent/continuity/posture.ts'
import { Wire } from '../../agent/wire/wire.ts'
import { macAddress } from '../../firmware/addresses.ts'
import { endChild } from '../../firmware/child.ts'
import { inNamespace, run } from '../../firmware/command.ts'

const PREFIX = process.env['WIRE_LAB'] ?? `ut${process.pid}-`
const ns = (name: string) => `${PREFIX}${name}`
const PMAC = macAddress('02:77:00:00:00:02')
const NEW_MAC = macAddress('02:77:00:00:00:22')
const V4 = '10.77.0.2'
const V4B = '10.77.0.3'
const V6 = 'fd77::2'

const ip = (line: string, namespace?: string) => {
  const command = { program: 'ip', args: line.split(' ') }
  return run(namespace === undefined ? command : inNamespace(ns(namespace), command), {
    timeoutMs: 5_000,
  })
}

/** Builds the three namespaces, runs this file inside the appliance's, and removes everything. */
async function outside(): Promise<void> {
  try {
    for (const name of ['users', 'box', 'production']) await ip(`netns add ${ns(name)}`)
    for (const name of ['users', 'production']) {
      await run(
        inNamespace(ns(name), {
          program: 'sysctl',
          args: ['-qw', 'net.ipv6.conf.default.accept_dad=0', 'net.ipv6.conf.all.accept_dad=0'],
        }),
        { timeoutMs: 5_000 },
      )
      await ip('link set lo up', name)
      const port = name === 'users' ? 'eth0' : 'eth1'
      await ip(`link add eth0 netns ${ns(name)} type veth peer name ${port} netns ${ns('box')}`)
    }
    await ip('link set eth0 address 02:77:00:00:00:10', 'users')
    await ip(`link set eth0 address ${PMAC}`, 'production')
    for (const one of ['10.77.0.10/24', '10.77.0.11/24', 'fd77::10/64'])
      await ip(`address add ${one} dev eth0`, 'users')
    for (const one of [`${V4}/24`, `${V4B}/24`, `${V6}/64`])
      await ip(`address add ${one} dev eth0`, 'production')
    for (const name of ['users', 'production']) await ip('link set eth0 up', name)
    const inside = spawn(
      'nsenter',
      [
        `--net=/run/netns/${ns('box')}`,
        ...(process.execArgv.length > 0
          ? [process.execPath, ...process.execArgv]
          : [process.execPath]),
        fileURLToPath(import.meta.url),
      ],
      { stdio: 'inherit', env: { ...process.env, WIRE_LAB: PREFIX } },
    )
    const [code] = await once(inside, 'exit')
    process.exitCode = typeof code === 'number' ? code : 1
  } finally {
    for (const name of ['users', 'box', 'production', 'svc', 'door', 'cli'])
      spawnSync('ip', ['netns', 'del', ns(name)], { stdio: 'ignore' })
  }
}

/** Runs inside a namespace and does what it is told, as JSON lines: serves lines, or talks to a server. */
const ACTOR = `
const net = require('node:net')
const servers = new Map(), clients = new Map()
const say = (message) => process.send(message)
const tell = { serve({ id, tag, ports }) {
  let left = ports.length
  for (const port of ports) {
    const live = new Set()
    const server = net.createServer((socket) => {
      live.add(socket); socket.on('error', () => {}).on('close', () => live.delete(socket))
      const peer = socket.remoteAddress.replace('::ffff:', '') + ' ' + socket.remotePort
      socket.write(tag + ' ' + peer + '\\n')
      socket.on('data', (data) => socket.write(tag + ': ' + data))
    })
    servers.set(port, { server, live })
    server.listen({ port, host: '::', backlog: 511 }, () => { left -= 1; if (left === 0) say({ id }) })
  }
}, stop({ id, ports }) {
  for (const port of ports) { const { server, live } = servers.get(port); server.close(); for (const one of live) one.resetAndDestroy() }
  say({ id })
}, open({ id, host, port, from, patienceMs }) {
  const begun = performance.now()
  const socket = net.connect({ host, port, localAddress: from })
  const timer = setTimeout(() => socket.destroy(new Error('silence')), patienceMs)
  const lines = []; let partial = '', waiting
  const state = { socket, next: () => lines.length > 0 ? Promise.resolve(lines.shift()) : new Promise((resolve) => { waiting = resolve }) }
  const put = (line) => { if (waiting) { const f = waiting; waiting = undefined; f(line) } else lines.push(line) }
  let connectedMs
  socket.once('connect', () => { connectedMs = performance.now() - begun })
  socket.on('data', (data) => { partial += data; const all = partial.split('\\n'); partial = all.pop(); all.forEach(put) })
  socket.on('error', (error) => put('! ' + (error.code ?? error.message)))
  socket.on('close', () => put('! closed'))
  clients.set(id, state)
  state.next().then((line) => { clearTimeout(timer); say({ id, line, port: socket.localPort, connectedMs }) })
}, talk({ id, client, text, patienceMs }) {
  const { socket, next } = clients.get(client)
  socket.write(text + '\\n')
  let done = false
  const answer = (line) => { if (!done) { done = true; say({ id, line }) } }
  const got = next(); got.then(answer)
  setTimeout(() => answer('! silence'), patienceMs)
}, next({ id, client }) { clients.get(client).next().then((line) => say({ id, line }))
}, hangUp({ id, client }) { clients.get(client).socket.destroy(); say({ id }) } }
process.on('message', (message) => tell[message.order](message))
process.on('disconnect', () => process.exit())
`

type Told = { readonly line: string; readonly port: number; readonly connectedMs: number }

class Actor {
  readonly #child
  readonly #waiting = new Map<number, (told: Told) => void>()
  static #last = 0

  constructor(namespace: string) {
    this.#child = spawn(
      'nsenter',
      [`--net=/run/netns/${ns(namespace)}`, process.execPath, '-e', ACTOR],
      { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] },
    )
    this.#child.on('message', (told: Told & { id: number }) => {
      this.#waiting.get(told.id)?.(told)
      this.#waiting.delete(told.id)
    })
  }

  order(order: string, details: Record<string, unknown>): Promise<Told> & { id: number } {
    Actor.#last += 1
    const id = Actor.#last
    const told = new Promise<Told>((resolve) => this.#waiting.set(id, resolve))
    this.#child.send({ id, order, ...details })
    return Object.assign(told, { id })
  }

  serve = (tag: string, ports: readonly number[]) => this.order('serve', { tag, ports })
  stop = (ports: readonly number[]) => this.order('stop', { ports })

  /** A connection that stays open. */
  async open(host: string, port: number, from?: string, patienceMs = 5_000) {
    const opened = this.order('open', { host, port, from, patienceMs })
    const greeting = await opened
    return {
      ...greeting,
      talk: async (text: string, patience = 5_000) =>
        (await this.order('talk', { client: opened.id, text, patienceMs: patience })).line,
      next: async () => (await this.order('next', { client: opened.id })).line,
      hangUp: () => this.order('hangUp', { client: opened.id }),
    }
  }

  /** Who answers a new connection: the first word of the greeting, or what went wrong. */
  async ask(host: string, port: number, from?: string, patienceMs?: number): Promise<string> {
    const connection = await this.open(host, port, from, patienceMs)
    await connection.hangUp()
    return connection.line.startsWith('!') ? connection.line : (connection.line.split(' ')[0] ?? '')
  }

  end = () => endChild(this.#child)
}

const settings = settingsFrom(
  {
    production: {
      addresses: [{ ipv4: V4, ipv6: V6 }, { ipv4: V4B }],
      mac: PMAC,
      hostname: 'mail.example.org',
      domains: ['example.org'],
      services: [
        { port: 143, protocol: 'imap', tls: 'starttls' },
        { port: 25, protocol: 'smtp', tls: 'none' },
      ],
      admin: { user: 'admin', passwordFile: '/dev/null' },
      tls: { certificateFile: '/dev/null', keyFile: '/dev/null' },
    },
    accounts: { passwdFile: '/dev/null' },
    wire: {
      namespacePrefix: PREFIX,
      management: { mac: '02:77:00:00:00:09', ipv4: { address: '10.77.0.9', prefix: 24 } },
    },
  },
  'test',
)

const nothing = () => {}
const WIRE: Posture = { name: 'wire', held: [] }
const STAND_IN: Posture = { name: 'stand-in', frozen: false }

/** Who answers the appliance's own address: the first word of the greeting, or what went wrong. */
const greetingFrom = (host: string, port: number): Promise<string> =>
  new Promise((resolve) => {
    const socket = connect({ host, port, localAddress: '10.77.0.9' })
    socket.setTimeout(3_000, () => resolve('! silence'))
    socket.once('error', (error) => resolve(`! ${error.message}`))
    socket.once('data', (data) => resolve(data.toString().split(' ')[0] ?? ''))
    socket.once('data', () => socket.destroy())
  })

async function coldCaches(): Promise<void> {
  for (const name of ['users', 'svc'])
    for (const family of ['-4', '-6']) await ip(`${family} neigh flush all`, name)
}

async function eventually(what: string, holds: () => Promise<boolean>, withinMs = 10_000) {
  const end = performance.now() + withinMs
  while (!(await holds())) {
    if (performance.now() > end) assert.unreachable(`never: ${what}`)
    await delay(50)
  }
}

function inside(): void {
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
      await delay(30)
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

  test.run()
}

if (process.env['WIRE_LAB'] === undefined) await outside()
else inside()
