// Goal: the queue keeps the order, never grows past its limit and never loses what it accepted.
// Method: pushes and takes in every order, by hand and by random walks.
import fc from 'fast-check'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { BoundedQueue } from '../../firmware/queue.ts'

const never = new AbortController().signal
const test = suite('bounded queue')

test('what was pushed is taken in the same order', async () => {
  const queue = new BoundedQueue<number>(3)
  for (const item of [1, 2, 3]) assert.ok(queue.push(item))
  assert.equal([await queue.take(never), await queue.take(never)], [1, 2])
  assert.is(queue.length, 1)
})

test('one who takes first gets the item that comes', async () => {
  const queue = new BoundedQueue<string>(1)
  const taken = queue.take(never)
  assert.ok(queue.push('late'))
  assert.is(await taken, 'late')
  assert.is(queue.length, 0)
})

test('a full queue refuses the newest, and counts', async () => {
  const queue = new BoundedQueue<number>(2)
  assert.equal(
    [1, 2, 3, 4].map((item) => queue.push(item)),
    [true, true, false, false],
  )
  assert.is(queue.refused, 2)
  assert.is(await queue.take(never), 1)
  assert.ok(queue.push(5))
})

test('an aborted taker takes nothing away', async () => {
  const queue = new BoundedQueue<number>(2)
  const stop = new AbortController()
  const taken = queue.take(stop.signal).then(String, String)
  stop.abort(new Error('enough'))
  assert.is(await taken, 'Error: enough')
  queue.push(7)
  assert.is(await queue.take(never), 7)
})

test('an aborted signal is refused, even when there is something to take', async () => {
  const queue = new BoundedQueue<number>(1)
  queue.push(1)
  const refusal = await queue.take(AbortSignal.abort(new Error('enough'))).then(String, String)
  assert.is(refusal, 'Error: enough')
  assert.is(queue.length, 1)
})

test('whatever the order of pushes and takes, what was accepted comes out, once, in order', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.boolean(), { maxLength: 60 }), async (steps) => {
      const queue = new BoundedQueue<number>(4)
      const accepted: number[] = []
      const taken: number[] = []
      for (const [number, isPush] of steps.entries()) {
        if (isPush && queue.push(number)) accepted.push(number)
        if (!isPush && queue.length > 0) taken.push(await queue.take(never))
        assert.ok(queue.length <= 4)
      }
      while (queue.length > 0) taken.push(await queue.take(never))
      assert.equal(taken, accepted)
    }),
    { numRuns: 200 },
  )
})

test.run()
