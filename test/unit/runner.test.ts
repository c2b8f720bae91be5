// Goal: the test runner never counts a file as passed that did not show that its tests ran and passed.
// Method: it runs small files that each misbehave in one way.
import { readFile } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { closingLine, sum, verdictOn } from '../runner/summary.ts'
import { runTask } from '../runner/task.ts'

const never = new AbortController().signal
const GENEROUS_MS = 30_000

const run = (name: string, timeoutMs = GENEROUS_MS) => {
  const file = `${import.meta.dirname}/../fixtures/runner/${name}.ts`
  return runTask({ program: 'node', args: [file] }, timeoutMs, never)
}

/** Whether a process is gone, or dead and waiting for its parent to hear of it; a killed one needs a moment. */
async function isEnded(pid: number): Promise<boolean> {
  for (let look = 0; look < 100; look += 1) {
    const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => ') Z')
    if (/\) [ZX]/.test(stat)) return true
    await delay(50)
  }
  return false
}

const test = suite('test runner')

test('counts what passed and what was skipped', async () => {
  assert.equal(verdictOn(await run('passes')), { passed: 1, failed: 0, skipped: 1 })
})

test('counts what failed, and keeps the output that says why', async () => {
  const ending = await run('fails')
  assert.equal(verdictOn(ending), { passed: 1, failed: 1, skipped: 0 })
  assert.match(ending.output, /one is two/)
})

test('a file without tests has failed', async () => {
  assert.equal(verdictOn(await run('empty')), { ...NONE_PASSED, because: 'holds no test' })
})

test('a file that forgets to run its tests has failed', async () => {
  const { failed, because } = verdictOn(await run('forgotten'))
  assert.is(failed, 1)
  assert.match(because ?? '', /no summary/)
})

test('a file that does not end is told to, can clean up, and has failed', async () => {
  const ending = await run('lingers', 1_500)
  assert.match(ending.output, /cleaned up/)
  assert.equal(verdictOn(ending), {
    passed: 1,
    failed: 1,
    skipped: 0,
    because: 'did not end: something is still open',
  })
})

test('what a file leaves behind is ended with it', async () => {
  const ending = await run('leaves-child')
  const pid = Number(/child (\d+)/.exec(ending.output)?.[1])
  assert.is(verdictOn(ending).passed, 1)
  assert.ok(await isEnded(pid))
})

test('a crash after a good summary is a failure', () => {
  const output = '  Total:     2\n  Passed:    2\n  Skipped:   0\n'
  const { failed } = verdictOn({ output, exitCode: 1, timedOut: false })
  assert.is(failed, 1)
})

test('an aborted run ends its file', async () => {
  const ending = await runTask({ program: 'sleep', args: ['60'] }, GENEROUS_MS, AbortSignal.abort())
  assert.is(ending.exitCode, null)
})

test('the closing line adds everything up', () => {
  const one = { passed: 3, failed: 0, skipped: 1 }
  assert.is(closingLine(sum([one, one])), '6 passed, 0 failed, 2 skipped')
})

const NONE_PASSED = { passed: 0, failed: 1, skipped: 0 }

test.run()
