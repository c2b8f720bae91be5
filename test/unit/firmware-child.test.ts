// Goal: no child outlives its parent, however the parent ends; and ending a child always ends it.
// Method: a real parent is killed, and real children are asked to end.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { endChild, startChild } from '../../firmware/child.ts'

/** Gone, or dead and waiting for its parent to hear of it. */
const isEnded = async (pid: number): Promise<boolean> => {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => ') Z')
  return /\) [ZX]/.test(stat)
}

async function endsSoon(pid: number): Promise<boolean> {
  for (let look = 0; look < 200; look += 1) {
    if (await isEnded(pid)) return true
    await delay(50)
  }
  return false
}

const test = suite('child')

test('a child dies with its parent, even when that is killed', async () => {
  const file = `${import.meta.dirname}/../fixtures/firmware/parent-process.ts`
  const parent = spawn(process.execPath, [file], { stdio: ['ignore', 'pipe', 'inherit'] })
  try {
    const [said] = await once(parent.stdout, 'data')
    const pid = Number(String(said))
    assert.not(await isEnded(pid))
    parent.kill('SIGKILL')
    assert.ok(await endsSoon(pid))
  } finally {
    parent.kill('SIGKILL')
  }
})

test('a child that listens ends at once', async () => {
  const child = startChild({ program: 'sleep', args: ['600'] })
  await endChild(child)
  assert.is(child.signalCode, 'SIGTERM')
})

test('a child that does not listen is killed after its grace', async () => {
  const args = ['-c', 'trap "" TERM; echo ready; while :; do sleep 0.05; done']
  const child = startChild({ program: 'sh', args }, { stdio: ['ignore', 'pipe', 'inherit'] })
  assert.ok(child.stdout)
  await once(child.stdout, 'data')
  await endChild(child, 100)
  assert.is(child.signalCode, 'SIGKILL')
})

test('ending a child that has ended is nothing', async () => {
  const child = startChild({ program: 'true', args: [] })
  await once(child, 'exit')
  await endChild(child)
  assert.is(child.exitCode, 0)
})

test('the environment of a child is ours and what it is given', async () => {
  const child = startChild(
    { program: 'printenv', args: ['LC_ALL', 'EXTRA', 'PATH'] },
    { stdio: ['ignore', 'pipe', 'inherit'], env: { EXTRA: 'yes' } },
  )
  assert.ok(child.stdout)
  const [said] = await once(child.stdout, 'data')
  assert.is(String(said), `C\nyes\n${process.env['PATH']}\n`)
  await endChild(child)
})

test.run()
