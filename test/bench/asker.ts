import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { inNamespace } from '../../firmware/command.ts'
import type { Bed } from '../lab/bed/bed.ts'
import { NODE } from '../lab/bed/tools.ts'
import { workerPath } from './beds.ts'
import type { AskerPlan, AskerRecord, Login, Question } from './questions.ts'

/** A client in a bed's users namespace that asks until it is stopped. */
export class Asker {
  readonly #records: AskerRecord[] = []
  readonly #ended: Promise<number | null>
  readonly #stop: () => void

  constructor(bed: Bed, plan: AskerPlan) {
    const worker = { program: NODE, args: [workerPath('asker.ts'), JSON.stringify(plan)] }
    const entered = inNamespace(bed.namespace('users'), worker)
    const child = spawn(entered.program, [...entered.args], { stdio: ['pipe', 'pipe', 'inherit'] })
    this.#stop = () => child.stdin.end()
    child.stdin.on('error', () => {})
    createInterface({ input: child.stdout }).on('line', (line) => {
      this.#records.push(JSON.parse(line) as AskerRecord)
    })
    this.#ended = new Promise((resolve, reject) => {
      child.once('error', reject)
      child.once('close', resolve)
    })
  }

  get questions(): readonly Question[] {
    return this.#records.filter((record) => record.loop !== 'login')
  }

  get logins(): readonly Login[] {
    return this.#records.filter((record) => record.loop === 'login')
  }

  /** Asks nothing more and waits for the answers that are still to come. @throws when the process failed */
  async stop(): Promise<void> {
    this.#stop()
    const code = await this.#ended
    if (code !== 0) throw new Error(`the asking process ended with ${code}`)
  }
}
