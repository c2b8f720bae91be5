import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type Command, inNamespace, run } from '../../../firmware/command.ts'

const COMMAND_MS = 30_000
const WORKER_MS = 300_000

/** The project's own directory. */
export const PROJECT = fileURLToPath(new URL('../../..', import.meta.url))

/** The pinned Node, whatever the PATH says: it runs TypeScript as it is. */
export const NODE = fileURLToPath(new URL('../../../node_modules/.bin/node', import.meta.url))

/** Runs a program where this process is. @throws {CommandFailed} */
export const here = (program: string, args: readonly string[], input?: string): Promise<string> =>
  run(command(program, args, input), { timeoutMs: COMMAND_MS })

/** Runs a program inside a namespace. @throws {CommandFailed} */
export const inside = (
  namespace: string,
  program: string,
  args: readonly string[],
  input?: string,
): Promise<string> =>
  run(inNamespace(namespace, command(program, args, input)), { timeoutMs: COMMAND_MS })

/**
 * Runs one of the lab's own programs inside a namespace: its input and its answer are JSON.
 * @throws {CommandFailed}
 */
export async function askWorker(namespace: string, file: string, input: unknown): Promise<unknown> {
  const program = join(PROJECT, 'test', 'lab', file)
  const worker = { program: NODE, args: [program], input: JSON.stringify(input) }
  const answer = await run(inNamespace(namespace, worker), { timeoutMs: WORKER_MS })
  return answer === '' ? undefined : JSON.parse(answer)
}

const command = (program: string, args: readonly string[], input: string | undefined): Command =>
  input === undefined ? { program, args } : { program, args, input }
