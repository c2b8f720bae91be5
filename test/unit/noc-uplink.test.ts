// Goal: an operations centre that is absent, deaf or wrong changes nothing for the agent, and a person is told why.
// Method: an uplink towards sockets that are closed, silent or hang up.
import { once } from 'node:events'
import net, { type AddressInfo } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { type NocSettings, problemOf } from '../../agent/noc/connection-problem.ts'
import { Uplink } from '../../agent/noc/uplink.ts'
import { quietStatus } from '../fakes/status.ts'

type Logged = readonly [level: string, event: string]

/** Runs an uplink until `enough`, stops it and answers with what it logged. */
async function runUntil(
  url: string,
  enough: (uplink: Uplink) => boolean,
  files: Partial<NocSettings> = {},
): Promise<{ uplink: Uplink; logged: readonly Logged[] }> {
  const logged: Logged[] = []
  const log = (level: string, event: string) => logged.push([level, event])
  const noc = { url, id: 'a1', caFile: undefined, certificateFile: undefined, keyFile: undefined }
  const uplink = new Uplink({
    noc: { ...noc, ...files },
    log,
    backoff: { leastMs: 5, mostMs: 20 },
  })
  uplink.state(quietStatus)
  uplink.event('info', 'agent.started')
  const stop = new AbortController()
  const ended = uplink.run(stop.signal)
  while (!enough(uplink)) await delay(5)
  stop.abort()
  await ended
  return { uplink, logged }
}

async function withServer(
  attend: (socket: net.Socket) => void,
  work: (url: string, callers: () => number) => Promise<void>,
): Promise<void> {
  const sockets = new Set<net.Socket>()
  let callers = 0
  const server = net.createServer((socket) => {
    callers += 1
    sockets.add(socket.on('error', () => {}))
    attend(socket)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  try {
    const { port } = server.address() as AddressInfo
    await work(`mqtt://127.0.0.1:${port}`, () => callers)
  } finally {
    for (const socket of sockets) socket.destroy()
    server.close()
  }
}

const test = suite('uplink')

test('nobody there: a problem for people, one line in the log, and it goes on trying', async () => {
  await withServer(
    (socket) => socket.destroy(),
    async (url, callers) => {
      const { uplink, logged } = await runUntil(url, () => callers() > 5)
      assert.match(uplink.problem?.where ?? '', /^noc\.url \(mqtt:/)
      assert.equal(logged, [['warn', 'uplink.lost']])
    },
  )
})

test('a closed port is told as such', async () => {
  let closed = ''
  await withServer(
    () => {},
    (url) => {
      closed = url
      return Promise.resolve()
    },
  )
  const { uplink } = await runUntil(closed, ({ problem }) => problem !== undefined)
  assert.is(uplink.problem?.what, 'nobody answers there')
})

test('a broker that accepts and says nothing does not delay the end', async () => {
  await withServer(
    () => {},
    async (url, callers) => {
      const { uplink, logged } = await runUntil(url, () => callers() > 0)
      assert.equal(logged, [])
      assert.is(uplink.problem, undefined)
    },
  )
})

test('another protocol is no broker', async () => {
  await withServer(
    (socket) => socket.end('220 mail.example.org ESMTP\r\n'),
    async (url) => {
      const { uplink } = await runUntil(url, ({ problem }) => problem !== undefined)
      assert.match(uplink.problem?.what ?? '', /^no telemetry: /)
    },
  )
})

test('a certificate file that is not there is named', async () => {
  const { uplink } = await runUntil('mqtts://127.0.0.1:1', ({ problem }) => problem !== undefined, {
    caFile: '/nowhere/ca.crt',
  })
  assert.is(uplink.problem?.where, 'noc.caFile (/nowhere/ca.crt)')
  assert.match(uplink.problem?.what ?? '', /cannot be read.*ENOENT/)
})

test('a certificate that is none, or an impossible address, ends nothing', async () => {
  const garbled = await runUntil('mqtts://127.0.0.1:1', ({ problem }) => problem !== undefined, {
    certificateFile: import.meta.filename,
    keyFile: import.meta.filename,
  })
  assert.match(garbled.uplink.problem?.what ?? '', /not in PEM/)
  const nowhere = await runUntil('mqtts://noc:99999', ({ problem }) => problem !== undefined)
  assert.is(nowhere.uplink.problem?.what, 'that is no address')
})

test('an uplink that is stopped before it starts ends at once', async () => {
  const noc = { url: 'mqtt://127.0.0.1:1', id: 'a1' }
  await new Uplink({ noc, log: () => {} }).run(AbortSignal.abort())
})

const noc = { url: 'mqtts://noc.example.org', id: 'a1', caFile: '/ca.crt' }
const coded = (code: string | number) => Object.assign(new Error('words'), { code })

const problems: readonly (readonly [code: string | number, what: RegExp, where: string])[] = [
  ['SELF_SIGNED_CERT_IN_CHAIN', /not signed by the authority/, 'noc.caFile (/ca.crt)'],
  ['CERT_HAS_EXPIRED', /expired/, 'noc.url (mqtts://noc.example.org)'],
  ['ERR_SSL_TLSV1_ALERT_UNKNOWN_CA', /does not accept our/, 'noc.certificateFile (not given)'],
  ['ENOTFOUND', /name is not known/, 'noc.url (mqtts://noc.example.org)'],
  [5, /does not authorise/, 'noc.id (a1)'],
  ['EWHATEVER', /^no telemetry: words$/, 'noc.url (mqtts://noc.example.org)'],
]

for (const [code, what, where] of problems)
  test(`${code} is told in words, with the setting to look at`, () => {
    const problem = problemOf(coded(code), noc)
    assert.match(problem.what, what)
    assert.is(problem.where, where)
    assert.ok(problem.todo.length > 10)
  })

test.run()
