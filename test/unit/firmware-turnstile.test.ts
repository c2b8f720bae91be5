// Goal: whoever waits at a turnstile goes on when it opens, and never waits for something that was called off.
// Method: waiting before and after opening, with signals that abort before and after the waiting begins.
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { turnstile } from '../../firmware/turnstile.ts'

const test = suite('turnstile')
const reasonOf = (waiting: Promise<void>) => waiting.then(() => 'passed', String)

test('those who wait and those who come later pass when it is open', async () => {
  const gate = turnstile()
  const before = gate.passed()
  assert.not(gate.isOpen)
  gate.open()
  await Promise.all([before, gate.passed()])
  assert.ok(gate.isOpen)
})

test('an abort while waiting ends the wait', async () => {
  const abort = new AbortController()
  const waiting = reasonOf(turnstile().passed(abort.signal))
  abort.abort('called off')
  assert.is(await waiting, 'called off')
})

test('what was called off before is not waited for', async () => {
  assert.is(await reasonOf(turnstile().passed(AbortSignal.abort('too late'))), 'too late')
})

test.run()
