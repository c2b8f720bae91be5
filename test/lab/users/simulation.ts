import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { inNamespace } from '../../../firmware/command.ts'
import type { Bed } from '../bed/bed.ts'
import { NODE, PROJECT } from '../bed/tools.ts'
import type { UserRecord, UsersPlan } from './records.ts'

export type SimulationOptions = {
  readonly seed?: number
  readonly pauseMs?: number
  /** An open-loop client beside the users; every 20 ms by default. */
  readonly asker?: { readonly everyMs: number; readonly login: boolean }
}

const STOP_MS = 120_000

/** The users of a bed at work. */
export class Simulation {
  /** All that happened so far, in the order in which it ended. */
  readonly records: UserRecord[] = []
  readonly #process: ChildProcess
  readonly #ended: Promise<void>
  #onPaused: () => void = () => {}

  private constructor(child: ChildProcess) {
    this.#process = child
    this.#ended = this.#collect(child)
    // It is awaited in `stop`; until then a failure waits there.
    this.#ended.catch(() => {})
  }

  static async start(bed: Bed, options: SimulationOptions = {}): Promise<Simulation> {
    const plan: UsersPlan = {
      accounts: bed.record.accounts,
      ca: await readFile(bed.record.ca, 'utf8'),
      seed: options.seed ?? 1,
      pauseMs: options.pauseMs ?? 400,
      ...(options.asker === undefined ? {} : { asker: options.asker }),
    }
    const program = join(PROJECT, 'test', 'lab', 'users.ts')
    const entered = inNamespace(bed.namespace('users'), { program: NODE, args: [program] })
    const child = spawn(entered.program, [...entered.args], { stdio: ['pipe', 'pipe', 'inherit'] })
    child.stdin?.on('error', () => child.kill())
    child.stdin?.write(`${JSON.stringify(plan)}\n`)
    return new Simulation(child)
  }

  /** Answers when everybody rests; the asker goes on. */
  async pause(): Promise<void> {
    const resting = new Promise<void>((resolve) => {
      this.#onPaused = resolve
    })
    this.#process.stdin?.write('pause\n')
    await Promise.race([resting, this.#ended])
  }

  resume(): void {
    this.#process.stdin?.write('resume\n')
  }

  /** Lets them finish what they do and send what is unsent. @throws {Error} when the simulation itself broke */
  async stop(): Promise<void> {
    this.#process.stdin?.end('stop\n')
    const impatient = setTimeout(() => this.#process.kill('SIGKILL'), STOP_MS)
    try {
      await this.#ended
    } finally {
      clearTimeout(impatient)
    }
  }

  /** Ends it at once. */
  kill(): void {
    this.#process.kill('SIGKILL')
  }

  async #collect(child: ChildProcess): Promise<void> {
    const exited = once(child, 'exit')
    if (child.stdout !== null)
      for await (const line of createInterface({ input: child.stdout }))
        this.#take(JSON.parse(line) as UserRecord)
    const [code] = await exited
    if (code !== 0) throw new Error(`the simulated users broke (${code})`)
  }

  #take(record: UserRecord): void {
    this.records.push(record)
    if (record.kind === 'paused') this.#onPaused()
  }
}
