// Goal: each state answers each event as the life cycle promises.
// Method: plain calls of the pure transition function.
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { next, postureOf, resumed, type State } from '../../agent/continuity/machine.ts'

const automatic = { takeOver: 'automatic', giveBack: 'automatic' } as const
const byOrder = { takeOver: 'by-order', giveBack: 'by-order' } as const
const waiting: State = { name: 'transparent-wait', suspected: [] }
const preparing: State = { name: 'prepare-to-failback', barrier: false }
const failed = { name: 'service-failed', service: 'imap:143', essential: true } as const
const test = suite('continuity machine')

test('a suspected service is held at the door, and released when it answers', () => {
  const held = next(waiting, { name: 'service-suspected', service: 'imap:143' }, automatic)
  assert.equal(postureOf(held), { name: 'wire', held: ['imap:143'] })
  assert.equal(next(held, { name: 'service-healthy', service: 'imap:143' }, automatic), waiting)
})

test('a failed essential service makes the appliance stand in', () => {
  assert.equal(postureOf(next(waiting, failed, automatic)), { name: 'stand-in', frozen: false })
})

test('a failed service that is not essential is held, and no more', () => {
  const after = next(waiting, { ...failed, essential: false }, automatic)
  assert.equal(after, { name: 'transparent-wait', suspected: ['imap:143'] })
})

test('nothing stands in by itself where only an order may', () => {
  assert.is(next(waiting, failed, byOrder).name, 'transparent-wait')
  assert.is(next(waiting, { name: 'take-over-ordered' }, byOrder).name, 'failover')
})

test('an incomplete replica never stands in, whoever asks', () => {
  for (const name of ['unconfigured', 'initialization'] as const)
    for (const event of [failed, { name: 'take-over-ordered' } as const])
      assert.is(next(resumed(name), event, automatic).name, name)
})

test('authority is handed back only under the barrier, when both sides agreed', () => {
  assert.equal(next(preparing, { name: 'sides-agreed' }, automatic), preparing)
  const barrier = next(preparing, { name: 'back-sync-converged' }, automatic)
  assert.equal(postureOf(barrier), { name: 'stand-in', frozen: true })
  assert.equal(next(barrier, { name: 'barrier-missed' }, automatic), preparing)
  assert.equal(postureOf(next(barrier, { name: 'sides-agreed' }, automatic)), { name: 'steer' })
})

test('production failing again during the way back returns to failover', () => {
  assert.is(next(preparing, failed, automatic).name, 'failover')
  assert.is(next({ name: 'failback' }, failed, automatic).name, 'failover')
})

test('a barrier and suspicions do not survive a restart', () => {
  assert.equal(resumed('prepare-to-failback'), preparing)
  assert.equal(resumed('transparent-wait'), waiting)
})

test.run()
