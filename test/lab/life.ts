import { readFile } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import type { Status } from '../../agent/console/status.ts'
import { CommandFailed } from '../../firmware/command.ts'
import { type AgentRecord, launchAgent } from './bed/appliance.ts'
import type { Bed } from './bed/bed.ts'
import { inBed, writeRecord } from './bed/record.ts'
import { compare, readDigest } from './digest.ts'

const UNTIL_MS = 60_000
const POLL_MS = 150

/** Waits for a condition; a deadline is no verdict on speed. @throws {Error} that says what never came about */
export async function until(
  what: string,
  condition: () => Promise<boolean>,
  withinMs = UNTIL_MS,
): Promise<void> {
  const deadline = performance.now() + withinMs
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`it never came to this: ${what}`)
    await delay(POLL_MS)
  }
}

/** The appliance's own words about itself; `undefined` while it does not answer. */
export async function statusOf(bed: Bed): Promise<Status | undefined> {
  try {
    return JSON.parse(await bed.ask('status', '--json')) as Status
  } catch (error: unknown) {
    if (error instanceof CommandFailed) return undefined
    throw error
  }
}

/** A line of the agent's log. */
export type Logged = Readonly<Record<string, unknown>> & { readonly event: string }

export async function logOf(bed: Bed): Promise<readonly Logged[]> {
  const text = await readFile(inBed(bed.record, 'appliance', 'agent.log'), 'utf8')
  return text.split('\n').flatMap((line) => (line.startsWith('{') ? [JSON.parse(line)] : []))
}

/** The states entered so far, the oldest first. */
export const statesIn = (log: readonly Logged[]): readonly string[] =>
  log.flatMap(({ event }) => /^(.*)\.entered$/.exec(event)?.[1] ?? [])

/** Waits until a state is in force; answers with the log's tail when it never comes. @throws {Error} */
export async function untilState(bed: Bed, state: Status['state']): Promise<void> {
  try {
    await until(state, async () => (await statusOf(bed))?.state === state)
  } catch (error: unknown) {
    const tail = (await logOf(bed)).slice(-12).map((line) => JSON.stringify(line))
    throw new Error([`the state is never ${state}`, ...tail].join('\n'), { cause: error })
  }
}

/** What differs between production and the replica, UIDNEXT included. Empty when both hold the same. */
export async function differencesBetweenSides(bed: Bed): Promise<readonly string[]> {
  const { accounts, subscriptions, unreadable } = compare(
    await readDigest(bed, 'production'),
    await readDigest(bed, 'replica'),
  )
  return [
    ...Object.entries(unreadable).map(([user, why]) => `${user}: ${why}`),
    ...Object.entries(subscriptions).flatMap(([user, { differences }]) =>
      differences.map((difference) => `${user}, subscriptions: ${difference}`),
    ),
    ...Object.entries(accounts).flatMap(([user, folders]) =>
      Object.entries(folders).flatMap(([folder, { differences, production, replica }]) => [
        ...differences.map((difference) => `${user}/${folder}: ${difference}`),
        ...(production?.uidNext === replica?.uidNext
          ? []
          : [`${user}/${folder}: UIDNEXT ${production?.uidNext}, replica ${replica?.uidNext}`]),
      ]),
    ),
  ]
}

/** Waits until both sides hold the same; while the replica follows, it may be a moment behind. @throws {Error} */
export async function untilSidesAgree(bed: Bed): Promise<void> {
  let differences: readonly string[] = []
  const agree = async () => {
    differences = await differencesBetweenSides(bed)
    return differences.length === 0
  }
  await until('both sides agree', agree, 20_000).catch((error: unknown) => {
    throw new Error(differences.join('\n'), { cause: error })
  })
}

export function agentOf({ record: { appliance } }: Bed): AgentRecord {
  if (appliance.kind === 'agent') return appliance
  throw new Error('this bed has no agent')
}

/** Starts the agent over what it left behind, as its supervisor does; answers when it can be asked. */
export async function startAgent(bed: Bed): Promise<void> {
  const log = inBed(bed.record, 'appliance', 'agent.log')
  const appliance = await launchAgent(bed.prefix, { ...agentOf(bed), log })
  Object.assign(bed.record, { appliance })
  await writeRecord(bed.record)
}
