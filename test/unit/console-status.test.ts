// Goal: a person who knows nothing of the inside reads from the status what the appliance does and what to do.
// Method: whole statuses, as text.
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import * as v from 'valibot'
import { type Status, statusSchema } from '../../agent/console/status.ts'
import { spanOf, statusLines } from '../../agent/console/status-lines.ts'
import { quietStatus } from '../fakes/status.ts'

const test = suite('status')

test('a quiet day is three lines', () => {
  assert.equal(statusLines(quietStatus), [
    'Production is answering; 20 of 20 accounts are ready to take over.',
    'State: transparent-wait for 2 h 5 min, because every account is complete.',
    'The replica is at most 1 s behind production, fully compared 2 min 5 s ago.',
  ])
})

test('while standing in, it says for whom, what waits and what is not handed back', () => {
  const status: Status = {
    ...quietStatus,
    state: 'failover',
    because: 'imap:143 failed',
    accounts: {
      total: 20,
      complete: 19,
      failing: [{ user: 'zoe', error: 'mailbox locked', nextTryInMs: 60_000 }],
    },
    services: [{ service: 'imap:143', verdict: 'failed', because: 'refused', sinceMs: 61_000 }],
    production: { reachable: false },
    serving: { queued: 1, liveFlows: 3, unbound: 12 },
    replication: {},
  }
  assert.equal(statusLines(status), [
    'The appliance is answering for production, for 19 of 20 accounts.',
    'State: failover for 2 h 5 min, because imap:143 failed.',
    'Service imap:143: failed for 1 min 1 s, because refused.',
    'Account zoe cannot be copied: mailbox locked. Next try in 1 min.',
    'Here: 1 mail waiting in the queue, 3 connections answered here, 12 changes not yet handed back to production.',
  ])
})

test('problems and refused settings say where to look and what to do', () => {
  const lines = statusLines({
    ...quietStatus,
    problems: [{ what: 'the disk is full', where: '/data', todo: 'Delete old mail' }],
    settings: { path: '/data/s.json', accepted: false },
  })
  assert.equal(lines.slice(-2), [
    'The settings in /data/s.json are refused; the last good ones are in force. See: understudy check-settings.',
    'Problem: /data: the disk is full. Delete old mail.',
  ])
})

test('without any settings there are no last good ones to speak of', () => {
  const settings = { path: '/data/s.json', accepted: false }
  const lines = statusLines({ ...quietStatus, state: 'unconfigured', settings })
  assert.not(lines.some((line) => line.includes('last good')))
})

test('production that is silent, or answers in part, is not called answering', () => {
  const headline = (status: Status) => String(statusLines(status)[0])
  assert.match(
    headline({ ...quietStatus, production: { reachable: false } }),
    /^Production does not/,
  )
  const services: Status['services'] = [
    { service: 'smtp:25', verdict: 'suspected', because: 'silent', sinceMs: 10 },
  ]
  assert.match(headline({ ...quietStatus, services }), /^Production answers only in part; 20 of/)
})

test('every state has its own first line', () => {
  const { state } = statusSchema.entries
  const lines = state.options.map((name) => statusLines({ ...quietStatus, state: name })[0])
  assert.is(new Set(lines).size, lines.length)
})

test('a thousand failing accounts do not flood a terminal', () => {
  const failing = Array.from({ length: 1_000 }, (_, index) => ({
    user: `u${index}`,
    error: 'refused',
    nextTryInMs: 1_000,
  }))
  const accounts = { total: 1_000, complete: 0, failing }
  const lines = statusLines({ ...quietStatus, accounts })
  assert.ok(lines.length < 20)
  assert.ok(lines.some((line) => line.includes('990 accounts more')))
})

test('a span of time is told in its two largest units', () => {
  const spans = [0, 999, 1_000, 59_600, 3_600_000, 7_261_000, 93_600_000, 86_399_999]
  assert.equal(spans.map(spanOf), [
    '0 ms',
    '999 ms',
    '1 s',
    '1 min',
    '1 h',
    '2 h 1 min',
    '1 d 2 h',
    '1 d',
  ])
})

test('a status survives its journey as JSON', () => {
  assert.equal(v.parse(statusSchema, JSON.parse(JSON.stringify(quietStatus))), quietStatus)
})

test.run()
