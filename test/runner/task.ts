import type { ChildProcess } from 'node:child_process'
import { resolve } from 'node:path'
import { endChild, startChild } from '../../firmware/child.ts'
import type { Command } from '../../firmware/command.ts'
import type { Ending } from './summary.ts'

/** The end of an output tells what happened; the rest of a runaway one is not kept. */
const OUTPUT_CHARACTERS_MAX = 256 * 1024
const TOOLS = resolve(import.meta.dirname, '../../node_modules/.bin')
/** How long a file that is told to end has for its own cleaning up. */
const GRACE_MS = 15_000

/**
 * Runs one program in a process group of its own until it ends, its time is up, or the signal says so. Then it is
 * asked to end (its `finally` blocks can run), and whatever it left of its group is ended for good.
 */
export async function runTask(
  command: Command,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<Ending> {
  const child = startChild(command, {
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { NO_COLOR: '1', FORCE_COLOR: '0', PATH: `${TOOLS}:${process.env['PATH']}` },
  })
  let output = ''
  const keep = (text: string) => {
    output = (output + text).slice(-OUTPUT_CHARACTERS_MAX)
  }
  child.stdout?.setEncoding('utf8').on('data', keep)
  child.stderr?.setEncoding('utf8').on('data', keep)
  let timedOut = false
  const timer = setTimeout(() => {
    timedOut = true
    void endChild(child, GRACE_MS)
  }, timeoutMs)
  const abort = () => void endChild(child, GRACE_MS)
  signal.addEventListener('abort', abort, { once: true })
  if (signal.aborted) abort()
  try {
    const exitCode = await endOf(child)
    return { output, exitCode, timedOut }
  } finally {
    clearTimeout(timer)
    signal.removeEventListener('abort', abort)
  }
}

/** The exit code, once its last output is read and its group is gone. */
function endOf(child: ChildProcess): Promise<number | null> {
  return new Promise((ended, reject) => {
    child.once('error', reject)
    // A grandchild that holds the pipes open would delay `close` for ever.
    child.once('exit', () => endGroup(child))
    child.once('close', (exitCode) => ended(exitCode))
  })
}

function endGroup({ pid }: ChildProcess): void {
  if (pid === undefined) return
  try {
    process.kill(-pid, 'SIGKILL')
  } catch (error: unknown) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ESRCH')) throw error
  }
}
