import { readFile } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'

/** A state of the appliance as its own log tells it. */
export type StateEntry = {
  readonly name: string
  /** Since the epoch. */
  readonly atMs: number
  readonly because: string
}

/** Something did not come in time; the message says what was waited for and how things stood instead. */
export class NeverCame extends Error {
  override readonly name = 'NeverCame'
}

const POLL_MS = 100

/** Follows the agent's log. */
export class Happenings {
  readonly #log: string
  readonly #isAlive: () => boolean
  readonly #on: (entry: StateEntry) => void
  readonly states: StateEntry[] = []

  constructor(log: string, isAlive: () => boolean, on: (entry: StateEntry) => void) {
    this.#log = log
    this.#isAlive = isAlive
    this.#on = on
  }

  /** Waits until the state has been entered after `sinceMs`; calls `meanwhile` about once a second. @throws {NeverCame} */
  async until(
    name: string,
    options: {
      readonly sinceMs: number
      readonly withinMs: number
      readonly signal: AbortSignal
      readonly meanwhile?: () => Promise<void>
    },
  ): Promise<StateEntry> {
    const deadline = performance.now() + options.withinMs
    for (let round = 0; performance.now() < deadline; round += 1) {
      options.signal.throwIfAborted()
      await this.look()
      const found = this.states.find((one) => one.name === name && one.atMs >= options.sinceMs)
      if (found !== undefined) return found
      if (!this.#isAlive()) throw new NeverCame(`${name} did not come: the agent has ended`)
      if (round % 10 === 9) await options.meanwhile?.()
      await delay(POLL_MS)
    }
    const last = this.states.at(-1)
    throw new NeverCame(
      `${name} did not come within ${options.withinMs / 1_000} s; the state is ${last?.name ?? 'unknown'}: ${last?.because ?? ''}`,
    )
  }

  /** Reads on in the log and tells what is new. */
  async look(): Promise<void> {
    const entries = stateEntries(await readFile(this.#log, 'utf8'))
    for (const entry of entries.slice(this.states.length)) {
      this.states.push(entry)
      this.#on(entry)
    }
  }
}

const ENTERED = /^([a-z-]+)\.entered$/

/** The states a log tells of, in their order. Lines that are not JSON (a crash's stack) are passed over. Pure. */
export function stateEntries(log: string): StateEntry[] {
  return log.split('\n').flatMap((line) => {
    if (!line.includes('.entered"')) return []
    const { event, at, because } = JSON.parse(line) as Record<string, unknown>
    const name = ENTERED.exec(String(event))?.[1]
    if (name === undefined) return []
    return [{ name, atMs: Date.parse(String(at)), because: String(because) }]
  })
}
