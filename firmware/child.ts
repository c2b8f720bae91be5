import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process'
import type { Command } from './command.ts'

/**
 * Starts a program that lives as long as it is needed, and never longer than this process: the kernel sends it
 * SIGTERM when its parent dies, however it dies (prctl(2) PR_SET_PDEATHSIG, by way of setpriv(1)).
 */
export function startChild(command: Command, options: SpawnOptions = {}): ChildProcess {
  return spawn('setpriv', ['--pdeathsig', 'TERM', command.program, ...command.args], {
    ...options,
    env: { ...process.env, LC_ALL: 'C', ...options.env },
  })
}

/** Ends a child: SIGTERM, and SIGKILL if it is still there after `graceMs`. Answers when it is gone. */
export async function endChild(child: ChildProcess, graceMs = 3_000): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return
  const gone = new Promise<void>((resolve) => child.once('exit', () => resolve()))
  child.kill('SIGTERM')
  const impatient = setTimeout(() => child.kill('SIGKILL'), graceMs)
  await gone
  clearTimeout(impatient)
}
