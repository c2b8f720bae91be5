import { type ChildProcess, spawn } from 'node:child_process'
import { open, readFile } from 'node:fs/promises'
import { inNamespace } from '../../../firmware/command.ts'

type Output = {
  readonly log: string
  readonly environment?: Readonly<Record<string, string>>
}

/**
 * Starts a program in a namespace that goes on when this process has ended; the bed's end is its end. Its output goes
 * to a file. Answers its process id.
 */
export async function startDaemon(
  namespace: string,
  program: string,
  args: readonly string[],
  output: Output,
): Promise<number> {
  const child = await launch(namespace, program, args, output)
  child.unref()
  if (child.pid === undefined) throw new Error(`${program} has no process id`)
  return child.pid
}

/**
 * Starts a program that puts itself into the background, and answers when it has said that it is ready. Its output goes
 * to a file, since a pipe would stay open as long as the daemon lives.
 */
export async function becomeDaemon(
  namespace: string,
  program: string,
  args: readonly string[],
  log: string,
): Promise<void> {
  const child = await launch(namespace, program, args, { log })
  const exitCode = await new Promise((resolve) => child.once('exit', resolve))
  if (exitCode === 0) return
  throw new Error(`${program} does not start (${exitCode}): ${await readFile(log, 'utf8')}`)
}

async function launch(
  namespace: string,
  program: string,
  args: readonly string[],
  { log, environment }: Output,
): Promise<ChildProcess> {
  const file = await open(log, 'a')
  try {
    const entered = inNamespace(namespace, { program, args })
    const child = spawn(entered.program, [...entered.args], {
      detached: true,
      stdio: ['ignore', file.fd, file.fd],
      env: { ...process.env, ...environment },
    })
    await new Promise<void>((resolve, reject) => {
      child.once('spawn', resolve)
      child.once('error', reject)
    })
    return child
  } finally {
    await file.close()
  }
}
