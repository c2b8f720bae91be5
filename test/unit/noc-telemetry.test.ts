// Goal: what leaves the house has the documented topics and shape, a bounded size, and no name of a mailbox.
// Method: messages made of statuses and events that hold names where one would not look.
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { Outbox } from '../../agent/noc/outbox.ts'
import {
  differs,
  eventMessage,
  infoMessage,
  offline,
  standInFor,
  statusMessage,
} from '../../agent/noc/telemetry.ts'
import { backoffMs } from '../../agent/noc/uplink.ts'
import type { Fields, Level } from '../../firmware/log.ts'
import { quietStatus } from '../fakes/status.ts'

const at = new Date('2026-01-02T03:04:05.678Z')
const fieldsOf = (fields: Fields) =>
  JSON.parse(eventMessage('a1', at, 'info', 'x.seen', fields).payload).fields

const test = suite('telemetry')

test('the status is retained, with its time', () => {
  const { topic, payload, qos, retain } = statusMessage('a1', at, quietStatus)
  assert.equal([topic, qos, retain], ['understudy/a1/status', 1, true])
  const { at: told, ...rest } = JSON.parse(payload)
  assert.is(told, '2026-01-02T03:04:05.678Z')
  assert.equal(rest, quietStatus)
})

test('the will and the farewell are one message', () => {
  assert.equal(offline('a1'), {
    topic: 'understudy/a1/status',
    payload: '{"state":"offline"}',
    qos: 1,
    retain: true,
  })
})

test('what changes rarely is retained apart', () => {
  const { topic, payload, retain } = infoMessage('a1', quietStatus)
  assert.equal([topic, retain], ['understudy/a1/info', true])
  assert.equal(JSON.parse(payload), {
    version: '1.2.3',
    services: ['imap:143', 'smtp:25'],
    accounts: { total: 20, complete: 20 },
  })
})

test('an event has a time, a level, a name and fields, and is not retained', () => {
  const message = eventMessage('a1', at, 'warn', 'wire.mended', { elements: 3, modSeq: 5n })
  assert.equal([message.topic, message.qos, message.retain], ['understudy/a1/events', 1, false])
  assert.equal(JSON.parse(message.payload), {
    at: '2026-01-02T03:04:05.678Z',
    level: 'warn',
    event: 'wire.mended',
    fields: { elements: 3, modSeq: 5 },
  })
})

test('a name has one stand-in, of twelve hexadecimal digits', () => {
  assert.is(standInFor('zoe'), standInFor('zoe'))
  assert.is.not(standInFor('zoe'), standInFor('adam'))
  assert.match(standInFor('zoe'), /^[0-9a-f]{12}$/)
})

test('no name of a mailbox leaves the house, wherever it stands', () => {
  const fields = {
    user: 'zoe',
    users: ['zoe', 'adam'],
    mailbox: 'Work/Secret plans',
    because: 'no answer for zoe@example.org; tried <adam@example.org>, twice',
    error: new Error('554 zoe@example.org: no'),
    todo: 'Ask zoe, or "adam".',
    inside: { account: 'zoe', list: ['adam@example.org'] },
  }
  const { payload } = eventMessage('a1', at, 'info', 'x.seen', fields)
  for (const name of ['zoe', 'adam', 'Secret']) assert.not(payload.includes(name), name)
  assert.is(fieldsOf(fields).inside.account, standInFor('zoe'))
  assert.equal(fieldsOf(fields).users, [standInFor('zoe'), standInFor('adam')])
})

test('a failing account is told by its stand-in, also inside its error', () => {
  const failing = [{ user: 'zoe', error: 'zoe: mailbox of zoe locked', nextTryInMs: 5 }]
  const problems = [{ what: 'a folder of judith is odd', where: 'account judith', todo: 'Nothing' }]
  const accounts = { total: 2, complete: 1, failing }
  const { payload } = statusMessage('a1', at, { ...quietStatus, accounts, problems })
  for (const name of ['zoe', 'judith']) assert.not(payload.includes(name), name)
  assert.is(JSON.parse(payload).accounts.failing[0].user, standInFor('zoe'))
})

test('no message grows with what it reports', () => {
  const failing = Array.from({ length: 5_000 }, (_, index) => ({
    user: `u${index}`,
    error: 'x'.repeat(5_000),
    nextTryInMs: 1,
  }))
  const accounts = { total: 5_000, complete: 0, failing }
  assert.ok(statusMessage('a1', at, { ...quietStatus, accounts }).payload.length < 150_000)
  const long = eventMessage('a1', at, 'error', 'x.seen', {
    texts: Array.from({ length: 90 }, () => 'x'.repeat(900)),
  })
  assert.ok(long.payload.length < 16 * 1024)
  assert.match(long.payload, /omittedCharacters/)
})

test('fields that go round in a circle or deep down end somewhere', () => {
  const circle: Record<string, unknown> = { name: 'circle' }
  circle['self'] = circle
  assert.is(fieldsOf(circle).name, 'circle')
  assert.equal(fieldsOf({ bytes: Buffer.from('secret') }), { bytes: '…' })
})

test('a status differs by what it says, not by the time that passed', () => {
  const later = { ...quietStatus, sinceMs: 9_999_999, replication: { lagMs: 3, lastSweepAgoMs: 9 } }
  assert.not(differs(quietStatus, later))
  assert.ok(differs(quietStatus, { ...later, because: 'an order' }))
})

const waiting = (level: Level, event: string) => ({
  level,
  message: eventMessage('a1', at, level, event),
})
const namesIn = (outbox: Outbox) =>
  outbox.oldest(100).map(({ message }) => JSON.parse(message.payload).event)

test('a full outbox gives up what matters least, the oldest first, and counts', () => {
  const outbox = new Outbox(3)
  outbox.push(waiting('error', 'a'))
  outbox.push(waiting('info', 'b'))
  outbox.push(waiting('debug', 'c'))
  outbox.push(waiting('warn', 'd'))
  assert.equal(namesIn(outbox), ['a', 'c', 'd'])
  outbox.push(waiting('warn', 'e'))
  outbox.push(waiting('warn', 'f'))
  assert.equal(namesIn(outbox), ['d', 'e', 'f'])
  assert.is(outbox.takeDropped(), 3)
  assert.is(outbox.takeDropped(), 0)
})

test('what was delivered leaves the outbox, even when something else gave way meanwhile', () => {
  const outbox = new Outbox(2)
  const [first, second] = [waiting('info', 'a'), waiting('warn', 'b')]
  outbox.push(first)
  outbox.push(second)
  outbox.push(waiting('warn', 'c'))
  outbox.done(first)
  outbox.done(second)
  assert.equal(namesIn(outbox), ['c'])
})

test('the wait between connections doubles to its limit, and is never the same for all', () => {
  const backoff = { leastMs: 1_000, mostMs: 60_000 }
  const waits = (random: number) => [0, 1, 2, 6, 1_000].map((n) => backoffMs(n, backoff, random))
  assert.equal(waits(0), [500, 1_000, 2_000, 30_000, 30_000])
  assert.equal(waits(1), [1_000, 2_000, 4_000, 60_000, 60_000])
})

test.run()
