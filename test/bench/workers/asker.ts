// Asks for IMAP greetings from inside the users' namespace, in an open and in a closed loop, and logs in now and then.
// The plan is its argument; records go out as JSON lines. The end of its input ends it, after the last answer.
import { readFile } from 'node:fs/promises'
import { setTimeout as delay, setInterval } from 'node:timers/promises'
import { HOSTNAME, PORTS } from '../../lab/bed/plan.ts'
import { ImapClient, ImapRefused } from '../../lab/clients/imap.ts'
import { ConnectionLost, NotConnected } from '../../lab/clients/line-socket.ts'
import { monotonicMs } from '../clock.ts'
import type { AskerPlan, AskerRecord, Login, Question } from '../questions.ts'

const OPEN_MAX = 2_000

const plan = JSON.parse(process.argv[2] ?? '') as AskerPlan
const stopped = new AbortController()
process.stdin.on('data', () => {}).once('end', () => stopped.abort())

const write = (record: AskerRecord) => process.stdout.write(`${JSON.stringify(record)}\n`)

/** Starts one of `act` every so often; answers when all that were started have ended. */
async function atPace(everyMs: number, act: (index: number) => Promise<void>): Promise<void> {
  const open = new Set<Promise<void>>()
  let index = 0
  try {
    for await (const _ of setInterval(everyMs, undefined, { signal: stopped.signal })) {
      if (open.size >= OPEN_MAX) continue
      const question = act(index).finally(() => open.delete(question))
      open.add(question)
      index += 1
    }
  } catch (error: unknown) {
    if (!stopped.signal.aborted) throw error
  }
  await Promise.all(open)
}

async function oneAfterTheOther(everyMs: number, act: () => Promise<void>): Promise<void> {
  while (!stopped.signal.aborted) {
    await act()
    await delay(everyMs, undefined, { signal: stopped.signal }).catch(() => undefined)
  }
}

async function ask(loop: Question['loop']): Promise<void> {
  const startedMs = monotonicMs()
  const ended = (outcome: Question['outcome'], why?: string) =>
    write({
      loop,
      startedMs,
      endedMs: monotonicMs(),
      outcome,
      ...(why === undefined ? {} : { because: why }),
    })
  try {
    const target = { host: plan.host, port: PORTS.imap }
    const client = await ImapClient.open(target, plan.patienceMs)
    ended('answered')
    client.close()
  } catch (error: unknown) {
    if (!(error instanceof ConnectionLost)) throw error
    ended(error instanceof NotConnected ? 'not-connected' : 'lost', error.because)
  }
}

async function login({ accounts }: NonNullable<AskerPlan['logins']>, ca: string, index: number) {
  const account = accounts[index % accounts.length]
  if (account === undefined) return
  const { user, password } = account
  const startedMs = monotonicMs()
  const steps: { greetingMs?: number; loginMs?: number; selectMs?: number } = {}
  let sinceMs = startedMs
  const step = (name: keyof typeof steps) => {
    const nowMs = monotonicMs()
    steps[name] = nowMs - sinceMs
    sinceMs = nowMs
  }
  const ended = (outcome: Login['outcome'], why?: string) => {
    const end = { startedMs, endedMs: monotonicMs(), outcome, ...steps }
    write({ loop: 'login', user, ...end, ...(why === undefined ? {} : { because: why }) })
  }
  try {
    const { host, patienceMs } = plan
    const target = { host, port: PORTS.imaps, tls: 'implicit', ca, servername: HOSTNAME } as const
    const client = await ImapClient.open(target, patienceMs)
    step('greetingMs')
    try {
      await client.login(user, password)
      step('loginMs')
      await client.ok('SELECT INBOX')
      step('selectMs')
      ended('answered')
    } finally {
      client.close()
    }
  } catch (error: unknown) {
    if (!(error instanceof ConnectionLost || error instanceof ImapRefused)) throw error
    ended('failed', error.message)
  }
}

const { everyMs, logins } = plan
const ca = logins === undefined ? '' : await readFile(logins.ca, 'utf8')
await Promise.all([
  atPace(everyMs, () => ask('open')),
  oneAfterTheOther(everyMs, () => ask('closed')),
  logins && atPace(logins.everyMs, (index) => login(logins, ca, index)),
])
