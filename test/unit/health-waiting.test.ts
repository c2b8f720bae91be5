// Goal: time in which this program did not run is no silence, and a sleeper can be woken.
// Method: a fake clock, and one whose sleeps end late.
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { Alarm, ListeningClock } from '../../agent/health/waiting.ts'
import type { Clock } from '../../firmware/clock.ts'
import { milliseconds } from '../../firmware/units.ts'
import { FakeClock, settled } from '../fakes/clock.ts'

const test = suite('waiting')

/** A machine that stalls: the next sleep ends so much later than it should. */
class StallingClock implements Clock {
  stallMs = 0
  #nowMs = 0

  now = () => milliseconds(this.#nowMs)
  date = () => new Date(0)

  sleep = (ms: number): Promise<void> => {
    this.#nowMs += ms + this.stallMs
    this.stallMs = 0
    return Promise.resolve()
  }
}

test('a sleep that ends in time costs nothing', async () => {
  const clock = new ListeningClock(new StallingClock())
  await clock.sleep(1_000)
  assert.is(clock.now(), 1_000)
  assert.is(clock.deafMs, 0)
})

test('the listening clock stands still while the program does not run', async () => {
  const machine = new StallingClock()
  const clock = new ListeningClock(machine)
  await clock.sleep(1_000)
  machine.stallMs = 3_000
  await clock.sleep(100)
  assert.is(machine.now(), 4_100)
  assert.is(clock.now(), 1_000)
  await clock.sleep(100)
  assert.is(clock.now(), 1_100)
})

test('what happened before, during and after a stall keeps its order', async () => {
  const machine = new StallingClock()
  const clock = new ListeningClock(machine)
  await clock.sleep(1_000)
  machine.stallMs = 3_000
  await clock.sleep(100)
  assert.equal(
    [500, 1_000, 2_500, 4_100, 4_200].map((at) => clock.heard(at)),
    [500, 1_000, 1_000, 1_000, 1_100],
  )
})

test('an alarm wakes at its time, at a ring, and only for what comes earlier', async () => {
  const clock = new FakeClock()
  const alarm = new Alarm(clock)
  const woken: number[] = []
  const sleep = (dueMs: number) => alarm.until(dueMs).then(() => woken.push(clock.now()))
  void sleep(1_000)
  await clock.pass(500)
  alarm.ringBefore(1_500)
  await settled()
  assert.equal(woken, [])
  await clock.pass(500)
  assert.equal(woken, [1_000])
  void sleep(5_000)
  await clock.pass(100)
  alarm.ringBefore(2_000)
  await settled()
  assert.equal(woken, [1_000, 1_100])
  await alarm.until(0)
})

test.run()
