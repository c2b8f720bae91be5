// Goal: orders reach the agent from this machine's owner only, and no caller can harm it.
// Method: a real socket in a temporary directory, an agent that notes what it is asked, and callers that misbehave.
import { once } from 'node:events'
import { mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises'
import net from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { AgentUnreachable, ask } from '../../agent/console/ask.ts'
import { Control, controlPath } from '../../agent/console/control.ts'
import type { Status } from '../../agent/console/status.ts'
import type { Orders } from '../../agent/console/verbs.ts'
import { quietStatus } from '../fakes/status.ts'

type Stage = {
  folder: string
  path: string
  status: Status
  asked: string[]
  logged: string[]
  stop: AbortController
  ended: Promise<void>
  onGiveBack: () => void
}

const test = suite<Stage>('control')

test.before.each(async (stage) => {
  stage.folder = await mkdtemp(join(tmpdir(), 'understudy-control-'))
  stage.path = controlPath({ run: stage.folder })
  stage.status = quietStatus
  stage.asked = []
  stage.logged = []
  stage.stop = new AbortController()
  stage.onGiveBack = () => {}
  const note = (what: string) => {
    stage.asked.push(what)
    return Promise.resolve({ accepted: true as const })
  }
  const orders: Orders = {
    status: () => stage.status,
    takeOver: (reason) => note(`take over: ${reason}`),
    giveBack: (reason) => {
      stage.onGiveBack()
      return note(`give back: ${reason}`)
    },
    reload: () => Promise.reject(new Error('disk on fire')),
    resync: (user) => {
      if (user === 'nobody')
        return Promise.resolve({ accepted: false, because: 'no such account: nobody' })
      if (user === 'forgotten') return new Promise(() => {})
      return note(`resync: ${user ?? 'all'}`)
    },
  }
  const log = (_: string, event: string) => stage.logged.push(event)
  // A socket that a dead agent left must not stand in the way.
  await writeFile(stage.path, '')
  const control = new Control({ path: stage.path, orders, log })
  stage.ended = control.run(stage.stop.signal)
  while (!(await stat(stage.path)).isSocket()) await delay(5)
})

test.after.each(async ({ folder, stop, ended }) => {
  stop.abort()
  await ended
  await rm(folder, { recursive: true })
})

/** Sends bytes as they are and answers what comes back until the agent closes. */
async function say(path: string, bytes: string): Promise<string> {
  const socket = net.connect(path)
  let heard = ''
  socket.setEncoding('utf8').on('data', (text: string) => {
    heard += text
  })
  socket.on('error', () => {})
  socket.end(bytes)
  await once(socket, 'close')
  return heard
}

test('the status arrives whole', async ({ path }) => {
  assert.equal(await ask(path, 'status'), { accepted: true, status: quietStatus })
})

test('an order arrives with its reason', async ({ path, asked }) => {
  assert.equal(await ask(path, 'give-back', { reason: ' disk replaced ' }), { accepted: true })
  await ask(path, 'resync', { user: 'zoe' })
  await ask(path, 'resync')
  assert.equal(asked, ['give back: disk replaced', 'resync: zoe', 'resync: all'])
})

test('an order that the agent refuses comes back with its reason', async ({ path }) => {
  assert.equal(await ask(path, 'resync', { user: 'nobody' }), {
    accepted: false,
    because: 'no such account: nobody',
  })
})

test('taking over from a production that answers needs a confirmation', async (stage) => {
  const refused = await ask(stage.path, 'take-over')
  assert.match(refused.accepted ? '' : refused.because, /production is answering.*confirm/)
  assert.equal(stage.asked, [])
  await ask(stage.path, 'take-over', { confirm: true })
  stage.status = { ...quietStatus, production: { reachable: false } }
  await ask(stage.path, 'take-over', { reason: 'fire drill' })
  assert.equal(stage.asked, ['take over: an order', 'take over: fire drill'])
})

test('nobody but the owner may open the socket, and nothing else is left beside it', async ({
  path,
  folder,
}) => {
  assert.is((await stat(path)).mode & 0o777, 0o600)
  assert.equal(await readdir(folder), ['control'])
})

test('several requests on one connection are answered in order', async ({ path }) => {
  const request = (verb: string) => `${JSON.stringify({ version: 1, verb })}\n`
  const answers = (await say(path, request('status') + request('resync') + request('nonsense')))
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
  assert.equal(
    answers.map(({ accepted, status }) => [accepted, status?.state]),
    [
      [true, 'transparent-wait'],
      [true, undefined],
      [false, undefined],
    ],
  )
})

const strange: readonly (readonly [what: string, bytes: string, answer: RegExp])[] = [
  ['no JSON', 'status\n', /not a JSON object/],
  ['another version', '{"version":2,"verb":"status"}\n', /speaks version 1; use the command/],
  ['no verb', '{"version":1}\n', /verb/],
  [
    'an unknown verb',
    '{"version":1,"verb":"explode"}\n',
    /no such verb: explode; there are status,/,
  ],
  ['an unknown argument', '{"version":1,"verb":"reload","arguments":{"force":true}}\n', /force/],
  ['arguments of the wrong shape', '{"version":1,"verb":"resync","arguments":"zoe"}\n', /argument/],
  ['a line without an end', 'x'.repeat(100_000), /over 16384 characters/],
  ['a line that is too long', `${'x'.repeat(20_000)}\n`, /over 16384 characters/],
]

for (const [what, bytes, answer] of strange)
  test(`${what} is refused with the reason`, async ({ path }) => {
    const heard = await say(path, bytes)
    assert.match(heard, /"accepted":false/)
    assert.match(heard, answer)
  })

test('half a request and silence is nothing', async ({ path }) => {
  assert.is(await say(path, '{"version":1,"verb":"st'), '')
})

test('an order that fails is told to its caller and to the log', async ({ path, logged }) => {
  const answer = await ask(path, 'reload')
  assert.match(answer.accepted ? '' : answer.because, /reload failed: Error: disk on fire/)
  assert.equal(logged, ['order.failed'])
})

test('callers beyond the sixteenth are turned away; the others are served', async ({ path }) => {
  const idle = Array.from({ length: 16 }, () => net.connect(path))
  try {
    await Promise.all(idle.map((socket) => once(socket, 'connect')))
    const answer = await ask(path, 'status').catch((error: unknown) => error)
    assert.instance(answer, AgentUnreachable)
  } finally {
    for (const socket of idle) socket.destroy()
  }
})

test('a caller that goes away before its answer does no harm', async ({ path }) => {
  const socket = net.connect(path)
  await once(socket, 'connect')
  socket.write('{"version":1,"verb":"status"}\n')
  socket.destroy()
  assert.is((await ask(path, 'status')).accepted, true)
})

test('when the agent has ended, the socket is gone and a caller is told so', async (stage) => {
  const open = net.connect(stage.path).resume()
  await once(open, 'connect')
  const closed = once(open, 'close')
  stage.stop.abort()
  await stage.ended
  await closed
  const answer = await ask(stage.path, 'status').catch((error: unknown) => error)
  assert.instance(answer, AgentUnreachable)
  assert.match(String(answer), new RegExp(`${stage.path}: .*ENOENT`))
})

test('the order that ends the agent is answered before the end', async (stage) => {
  stage.onGiveBack = () => stage.stop.abort()
  assert.equal(await ask(stage.path, 'give-back'), { accepted: true })
  await stage.ended
})

test('an answer that never comes does not delay the end', async (stage) => {
  const forgotten = ask(stage.path, 'resync', { user: 'forgotten' }).catch(String)
  await ask(stage.path, 'status')
  stage.stop.abort()
  await stage.ended
  assert.match(String(await forgotten), /closed without an answer/)
})

test('an agent that does not answer is waited for no longer than asked', async ({ folder }) => {
  const path = join(folder, 'deaf')
  const deaf = net.createServer(() => {}).listen(path)
  await once(deaf, 'listening')
  const answer = await ask(path, 'status', {}, { timeoutMs: 50 }).catch((error: unknown) => error)
  assert.match(String(answer), /no answer within 0.05 s/)
  deaf.close()
  await rm(path, { force: true })
})

test('an answer of another program is not taken for the agent', async ({ folder }) => {
  const path = join(folder, 'stranger')
  const stranger = net.createServer((socket) => socket.end('220 mail ESMTP\n')).listen(path)
  await once(stranger, 'listening')
  const answer = await ask(path, 'status').catch((error: unknown) => error)
  assert.match(String(answer), /does not understand/)
  stranger.close()
  await rm(path, { force: true })
})

test.run()
