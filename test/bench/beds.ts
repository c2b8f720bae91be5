import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { AgentUnreachable, ask } from '../../agent/console/ask.ts'
import { controlPath } from '../../agent/console/control.ts'
import type { Status } from '../../agent/console/status.ts'
import { pathsOf } from '../../agent/paths.ts'
import type { AgentRecord } from '../lab/bed/appliance.ts'
import { Bed, type BedOptions } from '../lab/bed/bed.ts'
import { isAlive } from '../lab/bed/processes.ts'
import { PROJECT } from '../lab/bed/tools.ts'

const POLL_MS = 50
const TAIL_LINES = 6

/** Builds beds one after the other, lets `use` work with them, and removes them whatever happens. */
export async function withBeds<T>(
  options: readonly BedOptions[],
  signal: AbortSignal,
  use: (beds: readonly Bed[]) => Promise<T>,
): Promise<T> {
  const beds: Bed[] = []
  try {
    for (const each of options) beds.push(await Bed.up(each, signal))
    return await use(beds)
  } finally {
    for (const bed of beds) await bed.down()
  }
}

/** The bed's appliance, which is an agent. */
export function agentOf(bed: Bed): AgentRecord {
  const { appliance } = bed.record
  if (appliance.kind !== 'agent') throw new Error('this bed has no agent')
  return appliance
}

/** Asks the agent itself, without the cost of starting a program. `undefined`: it does not answer at present. */
export async function statusOf(agent: AgentRecord): Promise<Status | undefined> {
  const socket = controlPath(pathsOf(agent.state))
  try {
    const answer = await ask(socket, 'status', {}, { timeoutMs: 5_000 })
    return answer.accepted ? answer.status : undefined
  } catch (error: unknown) {
    if (error instanceof AgentUnreachable) return undefined
    throw error
  }
}

/** Waits until the status is as wished. @throws when it is not within `limitMs`, or the signal aborts */
export async function untilStatus(
  agent: AgentRecord,
  wished: (status: Status) => boolean,
  { limitMs, signal, what }: { limitMs: number; signal: AbortSignal; what: string },
): Promise<Status> {
  const deadline = performance.now() + limitMs
  for (;;) {
    const status = await statusOf(agent)
    if (status !== undefined && wished(status)) return status
    if (!isAlive(agent.pid))
      throw new Error(`the agent has ended; it wrote: ${await lastWords(agent)}`)
    if (performance.now() > deadline)
      throw new Error(`not ${what} within ${limitMs} ms; it is: ${status?.state ?? 'silent'}`)
    await delay(POLL_MS, undefined, { signal })
  }
}

const lastWords = async ({ state }: AgentRecord): Promise<string> =>
  (await readFile(join(state, '..', 'agent.log'), 'utf8'))
    .trimEnd()
    .split('\n')
    .slice(-TAIL_LINES)
    .join(' | ')

/** The appliance is a wire and trusts every service. */
export const isAtRest = ({ state, services }: Status): boolean =>
  state === 'transparent-wait' && services.every(({ verdict }) => verdict === 'healthy')

/** A program of this folder. */
export const workerPath = (file: string): string => join(PROJECT, 'test', 'bench', 'workers', file)
