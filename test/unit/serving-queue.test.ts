// Goal: what was committed is there after a restart, what was not is gone, and what is done with does not come back.
// Method: the real queue in a temporary directory; a restart is a second queue on the same directory.
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { bounceText, headerOf } from '../../agent/serving/bounce.ts'
import { deliveredQuery } from '../../agent/serving/delivery.ts'
import { Gate, GateShut } from '../../agent/serving/gate.ts'
import {
  acceptedMs,
  type Entry,
  MailQueue,
  QueueFull,
  type Recipient,
} from '../../agent/serving/queue.ts'
import { byDomain } from '../../agent/serving/routes.ts'

type Context = { directory: string }
const test = suite<Context>('serving queue')
const events: string[] = []
const log = (_: string, event: string): void => {
  events.push(event)
}
const LOCAL: Recipient = { kind: 'local', user: 'alice', address: 'alice@example.org' }
const REMOTE: Recipient = { kind: 'remote', address: 'x@elsewhere.test' }

test.before.each(async (context) => {
  context.directory = await mkdtemp('/tmp/ut')
})
test.after.each(async ({ directory }) => {
  await rm(directory, { recursive: true })
})

const opened = async (directory: string, more = {}): Promise<MailQueue> => {
  const queue = new MailQueue({ directory, log, reserveBytes: 0, ...more })
  await queue.open()
  return queue
}

const stage = (queue: MailQueue, recipients: Recipient[], text = 'Subject: x\r\n\r\nbody\r\n') =>
  queue.stage(
    { from: 's@remote.test', recipients },
    (id) => `Received: id ${id}\r\n`,
    Readable.from([Buffer.from(text)]),
  )

const unexpected = (): void => assert.unreachable('it went through')

const textOf = async (queue: MailQueue, entry: Entry): Promise<string> => {
  const chunks: Buffer[] = []
  for await (const chunk of queue.read(entry)) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks).toString()
}

test('a committed message is there after a restart, and is suspect then', async ({ directory }) => {
  const queue = await opened(directory)
  const entry = await (await stage(queue, [LOCAL, REMOTE])).commit()
  assert.is(entry.suspect, false)
  const [found] = (await opened(directory)).entries
  assert.equal(found?.envelope, entry.envelope)
  assert.is(found?.suspect, true)
  const id = entry.envelope.id
  assert.is(await textOf(queue, entry), `Received: id ${id}\r\nSubject: x\r\n\r\nbody\r\n`)
})

test('a message that was not committed is gone after a restart', async ({ directory }) => {
  await stage(await opened(directory), [LOCAL])
  assert.is((await readdir(directory)).length, 1)
  assert.is((await opened(directory)).length, 0)
  assert.equal(await readdir(directory), [])
})

test('recipients that are done with stay so; the last one takes the message along', async ({
  directory,
}) => {
  const queue = await opened(directory)
  const entry = await (await stage(queue, [LOCAL, REMOTE])).commit()
  await queue.finish(entry, [0])
  const again = await opened(directory)
  const [found] = again.entries
  assert.equal([...(found?.pending ?? [])], [1])
  if (found !== undefined) await again.finish(found, [1])
  assert.is(again.length, 0)
  assert.equal(await readdir(directory), [])
})

test('two that finish at the same time leave nothing', async ({ directory }) => {
  const queue = await opened(directory)
  const entry = await (await stage(queue, [LOCAL, REMOTE])).commit()
  await Promise.all([queue.finish(entry, [0]), queue.finish(entry, [1]), queue.finish(entry, [1])])
  assert.is(queue.length, 0)
  assert.is((await opened(directory)).length, 0)
})

test('a stream that breaks leaves nothing behind', async ({ directory }) => {
  const queue = await opened(directory)
  const broken = Readable.from(
    (function* () {
      yield Buffer.from('Subject: half\r\n')
      throw new Error('the client went away')
    })(),
  )
  const staging = queue.stage({ from: '', recipients: [LOCAL] }, () => '', broken)
  await staging.then(unexpected, (error: Error) => assert.match(error.message, /went away/))
  assert.equal(await readdir(directory), [])
})

test('a damaged file does not hinder the others', async ({ directory }) => {
  await (await stage(await opened(directory), [LOCAL])).commit()
  await writeFile(join(directory, '00000000torn'), '{"id":"x", "fr')
  assert.is((await opened(directory)).length, 1)
  assert.ok(events.includes('queue.damaged'))
})

test('a full queue and a full disk refuse', async ({ directory }) => {
  for (const limits of [{ entriesMax: 0 }, { reserveBytes: 2 ** 62 }]) {
    const queue = await opened(directory, limits)
    await stage(queue, [LOCAL]).then(unexpected, (error: Error) =>
      assert.instance(error, QueueFull),
    )
  }
})

test('many commits at once are all there', async ({ directory }) => {
  const queue = await opened(directory)
  await Promise.all(Array.from({ length: 50 }, async () => (await stage(queue, [LOCAL])).commit()))
  assert.is((await opened(directory)).length, 50)
})

test('a queue id tells when its message was accepted', async ({ directory }) => {
  const before = Date.now()
  const { envelope } = await (await stage(await opened(directory), [LOCAL])).commit()
  assert.ok(acceptedMs(envelope.id) >= before && acceptedMs(envelope.id) <= Date.now())
  assert.equal(deliveredQuery('00000000abc'), [
    ...['SINCE', '1969-12-31'],
    ...['HEADER', 'Received', 'id 00000000abc'],
  ])
})

test('shut, the gate lets nobody in, and answers when the last one is out', async () => {
  const gate = new Gate()
  const steps: string[] = []
  const entering = gate.pass(async () => {
    steps.push('in')
    await new Promise((resolve) => setTimeout(resolve, 20))
    steps.push('out')
  }, 10_000)
  assert.equal(steps, [])
  gate.open()
  await gate.shut()
  assert.equal(steps, ['in', 'out'])
  await entering
})

test('who waits at the gate for too long, or in vain, is told', async () => {
  const gate = new Gate()
  const told = (error: Error) => assert.instance(error, GateShut)
  await gate.pass(() => Promise.resolve(), 1).then(unexpected, told)
  const waiting = gate.pass(() => Promise.resolve(), 10_000)
  gate.abandon()
  await waiting.then(unexpected, told)
})

test('a bounce names who did not get it and why, and quotes the header only', async () => {
  const original = Readable.from([Buffer.from('Subject: hello\r\nX: y\r\n\r\nsecret body')])
  const text = bounceText({
    envelope: {
      id: '0abc',
      from: 's@remote.test',
      acceptedAt: '2026-01-02T03:04:05.000Z',
      recipients: [REMOTE],
    },
    failures: [{ address: 'x@elsewhere.test', because: '550 5.1.1 no\r\nsuch user' }],
    header: await headerOf(original),
    hostname: 'mail.example.org',
    date: new Date('2026-01-02T03:04:06Z'),
  })
  assert.match(text, /^Date: Fri, 02 Jan 2026 03:04:06 \+0000\r\n/)
  assert.match(text, /multipart\/report; report-type=delivery-status/)
  assert.match(
    text,
    /Final-Recipient: rfc822; x@elsewhere\.test\r\nAction: failed\r\nStatus: 5\.1\.1/,
  )
  assert.match(text, /Diagnostic-Code: smtp; 550 5\.1\.1 no such user\r\n/)
  assert.match(text, /Subject: hello\r\nX: y\r\n/)
  assert.not.match(text, /secret body/)
})

test('addresses are grouped by domain', () => {
  assert.equal(
    [...byDomain(['a@x.test', 'b@y.test', 'c@X.test'])],
    [
      ['x.test', ['a@x.test', 'c@X.test']],
      ['y.test', ['b@y.test']],
    ],
  )
})

test.run()
