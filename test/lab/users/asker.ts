import { setInterval } from 'node:timers/promises'
import { PORTS, PRODUCTION } from '../bed/plan.ts'
import { ImapClient, ImapRefused } from '../clients/imap.ts'
import { ConnectionLost, NotConnected } from '../clients/line-socket.ts'
import { type Asked, nowMs, type Write } from './records.ts'

export type AskerPlan = {
  readonly everyMs: number
  /** With LOGIN and LOGOUT; else the greeting is the answer. */
  readonly login: boolean
  readonly user: string
  readonly password: string
}

const PATIENCE_MS = 60_000
const OPEN_MAX = 4_000

/**
 * Asks at a fixed pace whatever becomes of the earlier questions (open loop), so that a silence shows with its whole
 * length and not as one slow answer.
 */
export async function ask(plan: AskerPlan, write: Write, signal: AbortSignal): Promise<void> {
  const open = new Set<Promise<void>>()
  try {
    for await (const _ of setInterval(plan.everyMs, undefined, { signal })) {
      if (open.size >= OPEN_MAX) continue
      const question = askOnce(plan, write).finally(() => open.delete(question))
      open.add(question)
    }
  } catch (error: unknown) {
    if (!signal.aborted) throw error
  }
  await Promise.all(open)
}

async function askOnce({ login, user, password }: AskerPlan, write: Write): Promise<void> {
  const startedMs = nowMs()
  let client: ImapClient | undefined
  let [outcome, because]: [Asked['outcome'], string] = ['answered', '']
  try {
    client = await ImapClient.open({ host: PRODUCTION.ipv4, port: PORTS.imap }, PATIENCE_MS)
    if (login) await client.login(user, password)
  } catch (error: unknown) {
    if (!(error instanceof ConnectionLost || error instanceof ImapRefused)) throw error
    because = error.message
    outcome = error instanceof NotConnected ? 'not-connected' : 'lost'
    if (error instanceof ImapRefused) outcome = 'refused'
  }
  const why = because === '' ? {} : { because }
  write({ kind: 'asked', startedMs, endedMs: nowMs(), outcome, ...why })
  if (login && outcome === 'answered') await client?.logout()
  client?.close()
}
