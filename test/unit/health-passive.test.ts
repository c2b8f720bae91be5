// Goal: the users' traffic yields signs of life and of trouble, and their own troubles are not taken for production's.
// Method: short conversations written segment by segment.
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { Passive, type WireSegment } from '../../agent/health/passive.ts'

const test = suite('passive')
const NOTICE_MS = 200
const ann = '10.77.0.20:40001'
const bob = '10.77.0.21:40001'

class Wire {
  readonly passive = new Passive(
    [
      { port: 143, protocol: 'imap', tls: 'starttls', essential: true },
      { port: 993, protocol: 'imap', tls: 'implicit', essential: true },
    ],
    NOTICE_MS,
  )
  service: WireSegment['service'] = 'imap:143'

  users(atMs: number, what: Partial<WireSegment>, client = ann) {
    return this.#see(atMs, 'users', what, client)
  }

  production(atMs: number, what: Partial<WireSegment>, client = ann) {
    return this.#see(atMs, 'production', what, client)
  }

  /** A connection that has been greeted. */
  greeted(atMs: number, client = ann): void {
    this.users(atMs, { syn: true }, client)
    this.production(atMs, { syn: true, ack: true, seq: 100 }, client)
    this.production(atMs, { ack: true, seq: 101, payloadBytes: 50 }, client)
  }

  #see(atMs: number, from: WireSegment['from'], what: Partial<WireSegment>, client: string) {
    const { service } = this
    return this.passive.segment({ ...PLAIN, ...what, atMs, service, from, client })
  }
}

const PLAIN = { syn: false, ack: false, rst: false, fin: false, seq: 0, payloadBytes: 0 }
const asks = { ack: true, payloadBytes: 20 }

test('a SYN that nobody answers is silence since the SYN, said once, whatever is sent again', () => {
  const wire = new Wire()
  wire.users(1_000, { syn: true })
  assert.is(wire.passive.dueMs(), 1_200)
  assert.equal(wire.passive.silences(1_199), [])
  const silence = { service: 'imap:143', kind: 'silent', sinceMs: 1_000 }
  assert.equal(wire.passive.silences(1_200), [silence])
  wire.users(2_000, { syn: true })
  wire.users(4_000, { syn: true })
  assert.equal(wire.passive.silences(5_000), [])
  assert.is(wire.passive.dueMs(), Number.POSITIVE_INFINITY)
})

test('a refused SYN is a refusal; a reset of a connection that had been made is not', () => {
  const wire = new Wire()
  wire.users(1_000, { syn: true })
  const refusal = { service: 'imap:143', kind: 'refused', sinceMs: 1_001 }
  assert.equal(wire.production(1_001, { rst: true, ack: true }), refusal)
  assert.equal(wire.passive.silences(9_000), [])
  wire.greeted(2_000, bob)
  assert.is(wire.production(2_500, { rst: true, ack: true, seq: 151 }, bob), undefined)
})

test('a refusal whose SYN was not captured is known by its sequence number', () => {
  assert.is(new Wire().production(1, { rst: true, ack: true })?.kind, 'refused')
})

test('where the server speaks first, a handshake without a greeting is silence', () => {
  const wire = new Wire()
  wire.users(1_000, { syn: true })
  wire.production(1_001, { syn: true, ack: true, seq: 100 })
  assert.is(wire.passive.silences(1_200)[0]?.sinceMs, 1_000)
})

test('where the client speaks first, the handshake is all that is owed until it does', () => {
  const wire = new Wire()
  wire.service = 'imap:993'
  wire.users(1_000, { syn: true })
  wire.production(1_001, { syn: true, ack: true, seq: 100 })
  assert.is(wire.passive.dueMs(), Number.POSITIVE_INFINITY)
  wire.users(1_002, asks)
  assert.is(wire.passive.dueMs(), 1_202)
})

test('what production says is life, a repetition and a bare acknowledgement are not', () => {
  const wire = new Wire()
  wire.greeted(1_000)
  wire.users(2_000, asks)
  assert.is(wire.production(2_001, { ack: true, seq: 151 }), undefined)
  assert.is(wire.production(2_002, { ack: true, seq: 101, payloadBytes: 50 }), undefined)
  assert.is(wire.production(2_003, { ack: true, seq: 151, payloadBytes: 10 })?.kind, 'alive')
  assert.is(wire.passive.dueMs(), Number.POSITIVE_INFINITY)
})

test('sequence numbers may wrap around', () => {
  const wire = new Wire()
  wire.users(1_000, { syn: true })
  wire.production(1_000, { syn: true, ack: true, seq: 0xfffffff0 })
  assert.is(wire.production(1_001, { seq: 0xfffffff1, payloadBytes: 40 })?.kind, 'alive')
  wire.users(1_100, asks)
  assert.is(wire.production(1_101, { seq: 25, payloadBytes: 10 })?.kind, 'alive')
})

test('on a busy wire life is said now and then, not with each segment', () => {
  const wire = new Wire()
  wire.greeted(1_000)
  let said = 0
  for (let n = 0; n < 1_000; n++)
    if (wire.production(1_100 + n / 10, { seq: 151 + n * 10, payloadBytes: 10 })) said += 1
  assert.ok(said >= 4 && said <= 6, `${said}`)
})

test('life on one connection excuses all: a long command does not count again with each segment', () => {
  const wire = new Wire()
  wire.greeted(1_000)
  wire.greeted(1_000, bob)
  wire.users(2_000, asks)
  wire.production(2_100, { seq: 151, payloadBytes: 10 }, bob)
  for (let atMs = 2_200; atMs < 4_000; atMs += 100) wire.users(atMs, asks)
  assert.equal(wire.passive.silences(4_000), [])
})

test('a user who goes away withdraws the question', () => {
  for (const end of [{ rst: true }, { fin: true, ack: true }]) {
    const wire = new Wire()
    wire.greeted(1_000)
    wire.users(2_000, asks)
    wire.users(2_050, end)
    assert.equal(wire.passive.silences(9_000), [])
  }
})

test('who complained alone is not believed for a minute; others are', () => {
  const wire = new Wire()
  wire.users(1_000, { syn: true })
  assert.is(wire.passive.silences(1_200).length, 1)
  wire.passive.refuted('imap:143', 1_210)
  wire.users(5_000, { syn: true }, '10.77.0.20:40002')
  assert.is(wire.production(5_001, { rst: true, ack: true }, '10.77.0.20:40003'), undefined)
  assert.equal(wire.passive.silences(6_000), [])
  wire.users(7_000, { syn: true }, bob)
  assert.is(wire.passive.silences(7_200).length, 1)
  wire.passive.alive('imap:143')
  wire.users(70_000, { syn: true }, '10.77.0.20:40004')
  assert.is(wire.passive.silences(70_200).length, 1)
})

test('a flood of connections fills no memory', () => {
  const wire = new Wire()
  for (let n = 0; n < 20_000; n++)
    wire.users(n, { syn: true }, `10.${n >> 16}.${(n >> 8) & 255}.${n & 255}:1`)
  assert.is(wire.passive.silences(30_000).length, 1)
  wire.passive.forget()
  assert.is(wire.passive.dueMs(), Number.POSITIVE_INFINITY)
})

test.run()
