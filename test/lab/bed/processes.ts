import { readlink } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { CommandFailed } from '../../../firmware/command.ts'
import { here } from './tools.ts'

const ROUNDS_MAX = 50
const ROUND_MS = 20

/** The processes that live in a namespace; none when there is no such namespace. */
export async function processesIn(namespace: string): Promise<number[]> {
  try {
    const pids = await here('ip', ['netns', 'pids', namespace])
    return pids.split('\n').filter(Boolean).map(Number)
  } catch (error: unknown) {
    if (error instanceof CommandFailed) return []
    throw error
  }
}

/** The program a process runs; `undefined` when the process has gone. */
export async function programOf(pid: number): Promise<string | undefined> {
  try {
    return await readlink(`/proc/${pid}/exe`)
  } catch (error: unknown) {
    if (isGone(error)) return undefined
    throw error
  }
}

/** Sends a signal; a process that has gone meanwhile is no error. */
export function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name)
  } catch (error: unknown) {
    if (!isGone(error)) throw error
  }
}

/** Whether there is such a process (one that has ended but was not waited for counts as there). */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error: unknown) {
    if (isGone(error)) return false
    throw error
  }
}

/**
 * Sends a signal to all that `list` finds, again and again until it finds nobody new: a process may fork between the
 * listing and the signal. @throws {Error} when newcomers never end.
 */
export async function signalAll(
  list: () => Promise<readonly number[]>,
  name: NodeJS.Signals,
): Promise<void> {
  const signalled = new Set<number>()
  for (let round = 0; round < ROUNDS_MAX; round += 1) {
    const found = await list()
    const fresh = name === 'SIGKILL' ? found : found.filter((pid) => !signalled.has(pid))
    if (fresh.length === 0) return
    for (const pid of fresh) {
      signal(pid, name)
      signalled.add(pid)
    }
    await delay(ROUND_MS)
  }
  throw new Error(`after ${ROUNDS_MAX} rounds of ${name} there were still processes to signal`)
}

const isGone = (error: unknown): boolean => {
  const code = error instanceof Error && 'code' in error ? error.code : undefined
  return code === 'ESRCH' || code === 'ENOENT'
}
