import { type ChildProcess, spawn } from 'node:child_process'
import { readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as delay } from 'node:timers/promises'
import { pathsOf } from '../../agent/paths.ts'
import { REPLICA_IMAP_PORT, REPLICA_MASTER } from '../../agent/serving/dovecot-conf.ts'
import { inNamespace, run } from '../../firmware/command.ts'
import { launchAgent, stopAgent } from '../lab/bed/appliance.ts'
import type { Bed } from '../lab/bed/bed.ts'
import { DOMAIN, type NamespaceRole, PORTS, PRODUCTION } from '../lab/bed/plan.ts'
import { writeRecord } from '../lab/bed/record.ts'
import { NODE } from '../lab/bed/tools.ts'
import { agentOf, isAtRest, untilStatus, withBeds, workerPath } from './beds.ts'
import type { Bench, BenchContext } from './bench.ts'
import { doveadmBackup, mbsync } from './pullers.ts'
import { median } from './rows.ts'

const MESSAGES = 20_000
const RUNS = 3
const COPY_MS_MAX = 240_000
const BUILD_MS = 240_000
const ROUND_MS = 300_000
const MAILS = 40
const WARMING_MAILS = 3
const MAIL_EVERY_MS = 200
const DELIVERED_MS = 5_000
const LOOKS = 30
const WORKER_MS = 120_000

/** Copying an account for the first time, following it, and finding that nothing has changed. */
export const replication: Bench = {
  name: 'replication',
  metrics: [
    { metric: 'replication.vsMbsync', unit: 'times as fast', target: { atLeast: 4 } },
    { metric: 'replication.vsDoveadm', unit: 'times as fast', target: { atLeast: 0.8 } },
    { metric: 'replication.copyMs', unit: 'ms' },
    { metric: 'replication.firstPassVsDoveadm', unit: 'times as fast' },
    { metric: 'replication.messagesPerSecond', unit: 'messages/s' },
    { metric: 'replication.lagP95Ms', unit: 'ms', target: { atMost: 50 } },
    { metric: 'replication.lagMs', unit: 'ms' },
    { metric: 'replication.deliveryMs', unit: 'ms' },
    { metric: 'replication.noChangeMs', unit: 'ms' },
  ],
  limitMs: ({ runs }) => BUILD_MS + ROUND_MS * (runs ?? RUNS),
  measure: (context) => {
    const messages = context.options.messages ?? MESSAGES
    return withBeds([{ users: 1, messages }], context.signal, async ([bed]) => {
      if (bed === undefined) return
      await untilCopied(bed, context.signal)
      await copies(context, bed, messages)
      await noChange(context, bed)
      await lag(context, bed)
    })
  },
}

const untilCopied = (bed: Bed, signal: AbortSignal) =>
  untilStatus(agentOf(bed), isAtRest, { limitMs: COPY_MS_MAX, signal, what: 'copied' })

/** The same account by each program in turn, each time from nothing. */
async function copies({ say, record, options, signal }: BenchContext, bed: Bed, messages: number) {
  const [account] = bed.record.accounts
  if (account === undefined) return
  const { user, password } = account
  const [theirs, bare] = [await mbsync(bed, user, password), await doveadmBackup(bed, user)]
  const took = { ours: [] as Copy[], mbsync: [] as number[], doveadm: [] as number[] }
  const runs = options.runs ?? RUNS
  for (let round = 0; round < runs; round += 1) {
    signal.throwIfAborted()
    await theirs.clear()
    took.mbsync.push(await theirs.pull())
    await bare.clear()
    took.doveadm.push(await bare.pull())
    took.ours.push(await copyAnew(bed, signal))
    const { completeMs, firstPassMs } = took.ours.at(-1) ?? { completeMs: 0, firstPassMs: 0 }
    const [one, other] = [took.mbsync.at(-1) ?? 0, took.doveadm.at(-1) ?? 0]
    say(
      `ours ${completeMs} ms (first pass ${firstPassMs} ms), ` +
        `mbsync ${one.toFixed(0)} ms, doveadm ${other.toFixed(0)} ms`,
    )
  }
  const complete = took.ours.map(({ completeMs }) => completeMs)
  const first = took.ours.map(({ firstPassMs }) => firstPassMs)
  const times = (peers: readonly number[], ours: readonly number[]) =>
    peers.map((peer, round) => peer / (ours[round] ?? Number.NaN))
  const note = `one account of ${messages} messages; ours until proved equal, theirs without proof`
  const median3 = (name: string, values: readonly number[]) => ({
    peer: { name: `${name}, ms`, value: median(values) },
  })
  const vsMbsync = times(took.mbsync, complete)
  const vsDoveadm = times(took.doveadm, complete)
  const of = 'median'
  record('replication.vsMbsync', {
    values: vsMbsync,
    of,
    note,
    ...median3('mbsync', took.mbsync),
  })
  record('replication.vsDoveadm', {
    values: vsDoveadm,
    of,
    note,
    ...median3('doveadm', took.doveadm),
  })
  record('replication.copyMs', { values: complete, of })
  record('replication.firstPassVsDoveadm', { values: times(took.doveadm, first), of })
  const perSecond = complete.map((ms) => (messages * 1_000) / ms)
  record('replication.messagesPerSecond', { values: perSecond, of })
}

type Copy = { readonly completeMs: number; readonly firstPassMs: number }

/** The appliance forgets everything and starts again; its own log says when the copying began and ended. */
async function copyAnew(bed: Bed, signal: AbortSignal): Promise<Copy> {
  const { settings, state } = agentOf(bed)
  await stopAgent(agentOf(bed))
  await rm(state, { recursive: true, force: true })
  const log = join(bed.record.directory, 'appliance', 'agent.log')
  await writeFile(log, '')
  const appliance = await launchAgent(bed.prefix, { settings, state, log })
  Object.assign(bed.record, { appliance })
  await writeRecord(bed.record)
  await untilCopied(bed, signal)
  const entries = (await readFile(log, 'utf8')).split('\n').flatMap((line) => {
    if (!line.includes('"pass.ended"') && !line.includes('"account.completed"')) return []
    const { at, event, tookMs } = JSON.parse(line) as { at: string; event: string; tookMs?: number }
    return [{ atMs: Date.parse(at), event, tookMs: tookMs ?? 0 }]
  })
  const pass = entries.find(({ event }) => event === 'pass.ended')
  const end = entries.find(({ event }) => event === 'account.completed')
  if (pass === undefined || end === undefined) throw new Error('the log does not tell of the copy')
  return { completeMs: end.atMs - (pass.atMs - pass.tookMs), firstPassMs: pass.tookMs }
}

async function noChange({ record, signal }: BenchContext, bed: Bed): Promise<void> {
  signal.throwIfAborted()
  const { settings, state } = agentOf(bed)
  const plan = { settings, state, user: bed.record.accounts[0]?.user, times: LOOKS }
  const values = await numbersOf(bed, 'appliance', 'no-change.ts', plan)
  record('replication.noChangeMs', { values, of: 'median', note: 'one account of 11 folders' })
}

/** From production's `250` to a session of the replica that sees the mail. */
async function lag({ record, say, signal }: BenchContext, bed: Bed): Promise<void> {
  signal.throwIfAborted()
  const [account] = bed.record.accounts
  if (account === undefined) return
  const { user, password } = account
  const key = await readFile(join(pathsOf(agentOf(bed).state).run, 'doveadm.key'), 'utf8')
  const local = { host: '127.0.0.1' }
  const replica = { ...local, port: REPLICA_IMAP_PORT, user: `${user}*${REPLICA_MASTER}` }
  const watchers = [
    await Watcher.start(bed, 'appliance', { ...replica, password: key }),
    await Watcher.start(bed, 'production', { ...local, port: PORTS.imap, user, password }),
  ] as const
  try {
    const plan = { to: `${user}@${DOMAIN}`, mails: MAILS + WARMING_MAILS, everyMs: MAIL_EVERY_MS }
    const sent = await numbersOf(bed, 'users', 'sender.ts', plan)
    await delay(DELIVERED_MS, undefined, { signal })
    const [atReplica, atProduction] = watchers.map(({ seen }) =>
      sent.flatMap((sentMs, mail) => {
        const seenMs = seen[mail]
        return seenMs === undefined || mail < WARMING_MAILS ? [] : [seenMs - sentMs]
      }),
    )
    const missing = MAILS - (atReplica?.length ?? 0)
    say(`${sent.length} mails sent, ${missing} not seen in the replica`)
    if (missing > 0) throw new Error(`${missing} of ${MAILS} mails did not reach the replica`)
    const note = `from ${PRODUCTION.ipv4}'s 250, one mail every ${MAIL_EVERY_MS} ms`
    record('replication.lagP95Ms', { values: atReplica ?? [], of: 'p95', note })
    record('replication.lagMs', { values: atReplica ?? [], of: 'median' })
    const own = "production's own way from its 250 to its mailbox: part of the lag"
    record('replication.deliveryMs', { values: atProduction ?? [], of: 'median', note: own })
  } finally {
    for (const watcher of watchers) watcher.stop()
  }
}

/** Somebody who looks into an INBOX all the time. */
class Watcher {
  readonly seen: number[] = []
  readonly #child: ChildProcess

  private constructor(child: ChildProcess) {
    this.#child = child
  }

  static async start(bed: Bed, where: NamespaceRole, plan: object): Promise<Watcher> {
    const worker = { program: NODE, args: [workerPath('visible.ts'), JSON.stringify(plan)] }
    const entered = inNamespace(bed.namespace(where), worker)
    const child = spawn(entered.program, [...entered.args], { stdio: ['pipe', 'pipe', 'inherit'] })
    const watcher = new Watcher(child)
    const ready = Promise.withResolvers<void>()
    child.once('close', () => ready.reject(new Error('the watching process has ended')))
    createInterface({ input: child.stdout }).on('line', (line) => {
      if (line === 'ready') ready.resolve()
      else watcher.seen.push(Number(line))
    })
    await ready.promise
    return watcher
  }

  stop(): void {
    this.#child.stdin?.end()
  }
}

/** What one of this folder's programs prints, a number a line. @throws {CommandFailed} */
async function numbersOf(bed: Bed, where: NamespaceRole, file: string, plan: object) {
  const worker = { program: NODE, args: [workerPath(file), JSON.stringify(plan)] }
  const text = await run(inNamespace(bed.namespace(where), worker), { timeoutMs: WORKER_MS })
  return text.trim().split('\n').map(Number)
}
