import { createInterface } from 'node:readline'
import { setTimeout as delay } from 'node:timers/promises'
import * as v from 'valibot'
import { startChild } from '../../firmware/child.ts'
import { run } from '../../firmware/command.ts'
import type { Log } from '../../firmware/log.ts'
import { keepRunning } from './keep.ts'

const TIMEOUT_MS = 5_000
/** The kernel's messages tell at once; reading the state now and then finds what was missed. */
const READ_EVERY_MS = 30_000

const linkList = v.pipe(
  v.string(),
  v.parseJson(),
  v.array(v.object({ ifname: v.string(), flags: v.array(v.string()) })),
)

/** Whether a line of `ip -o monitor link` says that the cable is live; `undefined` when it is about something else. */
export function carrierIn(line: string, device: string): boolean | undefined {
  const [, deleted, name, flags] = /^(Deleted )?\d+: ([^:@]+)[^<]*<([^>]*)>/.exec(line) ?? []
  if (name !== device) return undefined
  return deleted === undefined && (flags ?? '').split(',').includes('LOWER_UP')
}

/**
 * Tells when an interface's cable becomes live or dead; the first call tells how it is. An interface that does
 * not exist is dead. Runs until the signal aborts.
 */
export async function watchCarrier(
  { interface: device, log }: { interface: string; log: Log },
  on: (up: boolean) => void,
  signal: AbortSignal,
): Promise<void> {
  let known: boolean | undefined
  let told = 0
  const learn = (up: boolean) => {
    told += 1
    if (up === known) return
    known = up
    on(up)
  }
  const start = () => {
    const child = startChild(
      { program: 'ip', args: ['-o', 'monitor', 'link'] },
      { stdio: ['ignore', 'pipe', 'ignore'] },
    )
    if (child.stdout !== null)
      createInterface({ input: child.stdout }).on('line', (line) => {
        const up = carrierIn(line, device)
        if (up !== undefined) learn(up)
      })
    return child
  }
  const monitoring = keepRunning(start, { name: 'ip monitor', log }, signal)
  while (!signal.aborted) {
    const before = told
    const up = await carrierOf(device)
    // A message that came meanwhile is newer than what was read.
    if (told === before) learn(up)
    await delay(READ_EVERY_MS, undefined, { signal }).catch(() => undefined)
  }
  await monitoring
}

async function carrierOf(device: string): Promise<boolean> {
  const show = { program: 'ip', args: ['-j', 'link', 'show'] }
  const links = v.parse(linkList, await run(show, { timeoutMs: TIMEOUT_MS }))
  return links.some(({ ifname, flags }) => ifname === device && flags.includes('LOWER_UP'))
}
