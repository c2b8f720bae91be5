import type { ChildProcess } from 'node:child_process'
import { setTimeout as delay } from 'node:timers/promises'
import { endChild } from '../../firmware/child.ts'
import type { Log } from '../../firmware/log.ts'

const PAUSE_LEAST_MS = 250
const PAUSE_MOST_MS = 5_000
/** A program that has run for so long is not failing at its start. */
const STEADY_MS = 10_000

/**
 * Keeps a program running until the signal aborts, and then ends it: one that ends by itself is started again
 * after a pause, which grows as long as it keeps failing.
 */
export async function keepRunning(
  start: () => ChildProcess,
  { name, log }: { name: string; log: Log },
  signal: AbortSignal,
): Promise<void> {
  let pauseMs = PAUSE_LEAST_MS
  while (!signal.aborted) {
    const child = start()
    const end = () => void endChild(child)
    signal.addEventListener('abort', end, { once: true })
    const begunMs = performance.now()
    const because = await new Promise<string>((resolve) => {
      child.once('error', (error) => resolve(error.message))
      child.once('close', (code, by) => resolve(code === null ? String(by) : `exit code ${code}`))
    })
    signal.removeEventListener('abort', end)
    if (signal.aborted) return
    if (performance.now() - begunMs > STEADY_MS) pauseMs = PAUSE_LEAST_MS
    log('warn', 'program.ended', { name, because, againInMs: pauseMs })
    await delay(pauseMs, undefined, { signal }).catch(() => undefined)
    pauseMs = Math.min(pauseMs * 2, PAUSE_MOST_MS)
  }
}
