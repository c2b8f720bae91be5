import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { connect } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import * as assert from 'uvu/assert'
import { settingsFrom } from '../../agent/config.ts'
import { macAddress } from '../../firmware/addresses.ts'
import { endChild, startChild } from '../../firmware/child.ts'
import { inNamespace, run } from '../../firmware/command.ts'

const PREFIX = process.env['WIRE_LAB'] ?? `ut${process.pid}-`
export const ns = (name: string) => `${PREFIX}${name}`
export const PMAC = macAddress('02:77:00:00:00:02')
export const V4 = '10.77.0.2'
export const V4B = '10.77.0.3'
export const V6 = 'fd77::2'
/** The users' namespace is also the router to users further away. */
const GATEWAYS = { ipv4: '10.77.0.10', ipv6: 'fd77::10' }

export const ip = (line: string, namespace?: string) => {
  const command = { program: 'ip', args: line.split(' ') }
  return run(namespace === undefined ? command : inNamespace(ns(namespace), command), {
    timeoutMs: 5_000,
  })
}

/**
 * Whether this process is inside the appliance's namespace. Outside, it builds the three namespaces, runs the same
 * file inside, passes on its exit code and removes everything.
 */
export async function insideAppliance(file: string): Promise<boolean> {
  if (process.env['WIRE_LAB'] !== undefined) return true
  await outside(fileURLToPath(file))
  return false
}

async function outside(file: string): Promise<void> {
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
    for (const one of ['10.88.0.1/32', 'fd88::1/128'])
      await ip(`address add ${one} dev lo`, 'users')
    for (const one of [`${V4}/24`, `${V4B}/24`, `${V6}/64`])
      await ip(`address add ${one} dev eth0`, 'production')
    for (const name of ['users', 'production']) await ip('link set eth0 up', name)
    for (const gateway of Object.values(GATEWAYS))
      await ip(`route add default via ${gateway}`, 'production')
    const inside = startChild(
      {
        program: 'nsenter',
        args: [`--net=/run/netns/${ns('box')}`, process.execPath, ...process.execArgv, file],
      },
      { stdio: 'inherit', env: { WIRE_LAB: PREFIX } },
    )
    for (const signal of ['SIGINT', 'SIGTERM'] as const)
      process.once(signal, () => inside.kill('SIGTERM'))
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

export class Actor {
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

export const settings = settingsFrom(
  {
    production: {
      addresses: [{ ipv4: V4, ipv6: V6 }, { ipv4: V4B }],
      mac: PMAC,
      gateways: GATEWAYS,
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

/** Who answers the appliance's own address: the first word of the greeting, or what went wrong. */
export const greetingFrom = (host: string, port: number): Promise<string> =>
  new Promise((resolve) => {
    const socket = connect({ host, port, localAddress: '10.77.0.9' })
    socket.setTimeout(3_000, () => resolve('! silence'))
    socket.once('error', (error) => resolve(`! ${error.message}`))
    socket.once('data', (data) => resolve(data.toString().split(' ')[0] ?? ''))
    socket.once('data', () => socket.destroy())
  })

export async function coldCaches(): Promise<void> {
  for (const name of ['users', 'svc'])
    for (const family of ['-4', '-6']) await ip(`${family} neigh flush all`, name)
}

export async function eventually(what: string, holds: () => Promise<boolean>, withinMs = 10_000) {
  const end = performance.now() + withinMs
  while (!(await holds())) {
    if (performance.now() > end) assert.unreachable(`never: ${what}`)
    await delay(50)
  }
}
