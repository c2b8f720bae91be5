import type { ChildProcess } from 'node:child_process'
import { text } from 'node:stream/consumers'
import { endChild, startChild } from '../../firmware/child.ts'
import { type Command, CommandFailed, type Run } from '../../firmware/command.ts'
import { parseTable, type TableFacts } from './readback.ts'
import { TABLE } from './ruleset.ts'

const TIMEOUT_MS = 5_000

const LOAD: Command = { program: 'nft', args: ['-f', '-'] }

/** A loader that has been started and waits for its text, and what it will have said when it is gone. */
type Waiting = {
  readonly child: ChildProcess
  readonly end: Promise<{ readonly exitCode: number | undefined; readonly stderr: string }>
}

/**
 * nft(8). One loader is always started ahead and waits on its stdin, so that a switch costs the 2 ms of the
 * transaction and not the start of a program.
 */
export class Nft {
  readonly #run: Run
  #waiting: Waiting | undefined
  #closed = false

  constructor(run: Run) {
    this.#run = run
  }

  /** Applies a text in one transaction: all of it or nothing. @throws {CommandFailed} */
  async apply(ruleset: string): Promise<void> {
    const ready = this.#waiting
    this.#waiting = undefined
    try {
      if (ready === undefined || ready.child.exitCode !== null || ready.child.signalCode !== null)
        await this.#run({ ...LOAD, input: ruleset }, { timeoutMs: TIMEOUT_MS })
      else await feed(ready, ruleset)
    } finally {
      if (!this.#closed) this.#waiting ??= startLoader()
    }
  }

  /** Our table as the kernel has it; `undefined` when there is none. @throws {CommandFailed} */
  async list(): Promise<TableFacts | undefined> {
    const list: Command = { program: 'nft', args: ['-j', 'list', 'table', ...TABLE.split(' ')] }
    try {
      return parseTable(await this.#run(list, { timeoutMs: TIMEOUT_MS }))
    } catch (error: unknown) {
      if (error instanceof CommandFailed && /No such file or directory/.test(error.stderr))
        return undefined
      throw error
    }
  }

  /** Ends the loader that waits; what is loaded stays. */
  async close(): Promise<void> {
    this.#closed = true
    const ready = this.#waiting
    this.#waiting = undefined
    if (ready !== undefined) await endChild(ready.child)
  }
}

function startLoader(): Waiting {
  const child = startChild(LOAD, { stdio: ['pipe', 'ignore', 'pipe'] })
  // A loader that died early has an exit code, which tells more than a broken pipe.
  child.stdin?.on('error', () => {})
  const exit = new Promise<number | undefined>((resolve) => {
    child.once('error', () => resolve(undefined))
    child.once('close', (code) => resolve(code ?? undefined))
  })
  const stderr = child.stderr === null ? Promise.resolve('') : text(child.stderr)
  const end = Promise.all([exit, stderr]).then(([exitCode, said]) => ({ exitCode, stderr: said }))
  return { child, end }
}

async function feed({ child, end }: Waiting, ruleset: string): Promise<void> {
  const impatient = setTimeout(() => child.kill('SIGKILL'), TIMEOUT_MS)
  child.stdin?.end(ruleset)
  const { exitCode, stderr } = await end
  clearTimeout(impatient)
  if (exitCode !== 0)
    throw new CommandFailed({ ...LOAD, input: ruleset }, exitCode, stderr, undefined)
}
