import { type IncomingMessage, request } from 'node:http'
import { setTimeout as delay } from 'node:timers/promises'
import { PeerUnreachable } from './imap.ts'

/** A doveadm command that was refused, with the exit code it would have on the command line (sysexits.h). */
export class DoveadmRefused extends Error {
  override readonly name = 'DoveadmRefused'
  readonly command: string
  /** Absent when the API itself refused: unknown command, unknown argument. */
  readonly exitCode: number | undefined

  constructor(command: string, exitCode: number | undefined, because: string) {
    super(`doveadm ${command}: ${because}`)
    this.command = command
    this.exitCode = exitCode
  }
}

/** A command of the API in camel case with its arguments, e.g. `['mailboxStatus', {user, field: ['all'], …}]`. */
export type DoveadmCommand = readonly [name: string, args: Readonly<Record<string, unknown>>]

/** Makes a folder of the replica differ from production in HIGHESTMODSEQ, so that a pull looks at it (see `overlooked`). */
export const stepAside = (
  user: string,
  { path, highestModSeq }: { readonly path: string; readonly highestModSeq: bigint },
): DoveadmCommand => [
  'mailboxUpdate',
  { user, mailbox: path, minHighestModseq: String(highestModSeq + 1n) },
]

export type DoveadmSettings = {
  readonly port: number
  readonly key: string
}

type Limits = { readonly timeoutMs?: number; readonly signal?: AbortSignal }

const HOST = '127.0.0.1'
const COMMAND_MS = 60_000
/** A first copy of a mailbox of hundreds of gigabytes ends within this time. */
const BACKUP_MS = 12 * 3_600_000
const ANSWER_BYTES_MAX = 64 * 1024 * 1024
const WORKERS_END_MS = 2_000
const POLL_MS = 10

/**
 * Dovecot's doveadm over its HTTP API (https://doc.dovecot.org/2.3/admin_manual/doveadm_http_api/). Dovecot closes the
 * connection after each request and gives each a process of its own: several commands in one request are cheaper.
 */
export class Doveadm {
  readonly #settings: DoveadmSettings

  constructor(settings: DoveadmSettings) {
    this.#settings = settings
  }

  /** Runs one command and answers its result. @throws {DoveadmRefused} {PeerUnreachable} */
  async call(
    name: string,
    args: Readonly<Record<string, unknown>>,
    limits: Limits = {},
  ): Promise<unknown> {
    const [result] = await this.batch([[name, args]], limits)
    return result
  }

  /**
   * Runs commands one after the other in one request and answers their results in the same order.
   * @throws {DoveadmRefused} for the first that was refused (the later ones were run nevertheless). {PeerUnreachable}
   */
  async batch(commands: readonly DoveadmCommand[], limits: Limits = {}): Promise<unknown[]> {
    const results = await this.each(commands, limits)
    const refused = results.find((result) => result instanceof DoveadmRefused)
    if (refused !== undefined) throw refused
    return results
  }

  /** As `batch`, but a refusal stands in the place of the command's result. @throws {PeerUnreachable} */
  async each(
    commands: readonly DoveadmCommand[],
    limits: Limits = {},
  ): Promise<(unknown | DoveadmRefused)[]> {
    if (commands.length === 0) return []
    const answers = await this.#ask(commands, limits)
    return commands.map(([name], n) => {
      const answer = answers.get(String(n))
      return answer?.kind === 'doveadmResponse' ? answer.value : refusal(name, answer?.value)
    })
  }

  /**
   * Makes the replica of an account, or of some folders of it, equal to production (`doveadm backup -R … imapc:`).
   * Exit code 0: done; 75: production could not be read, or folders that had diverged were dropped from the replica
   * and will be pulled by the next run (doveadm-sync(1)). Of several folders the first code that is not 0 counts.
   * `first` and `then` are commands that are run before and afterwards, whatever came of the others; `results` are those
   * of `then`, as of `each`. The worker
   * that does it panics when production refuses the login: that shows as `PeerUnreachable`.
   * @throws {PeerUnreachable} {DoveadmRefused} without exit code
   */
  async backup(
    user: string,
    mailboxes?: string | readonly string[],
    then: readonly DoveadmCommand[] = [],
    first: readonly DoveadmCommand[] = [],
  ): Promise<{ readonly exitCode: number; readonly results: readonly unknown[] }> {
    const args = { user, reverseSync: true, destination: ['imapc:'] }
    const folders = typeof mailboxes === 'string' ? [mailboxes] : mailboxes
    const backups = (folders ?? [undefined]).map(
      (mailbox) => ['backup', mailbox === undefined ? args : { ...args, mailbox }] as const,
    )
    const all = await this.each([...first, ...backups, ...then], { timeoutMs: BACKUP_MS })
    const answers = all.slice(first.length)
    let exitCode = 0
    for (const answer of answers.slice(0, backups.length)) {
      if (!(answer instanceof DoveadmRefused)) continue
      if (answer.exitCode === undefined) throw answer
      exitCode ||= answer.exitCode
    }
    return { exitCode, results: answers.slice(backups.length) }
  }

  /**
   * Kills every worker that is busy with a command; answers when they are gone. A worker that waits for a silent
   * production heeds no SIGTERM, and would write into the replica when production wakes up. A folder whose copy is
   * cut off is as it was before. @throws {PeerUnreachable}
   */
  async endWorkers(): Promise<void> {
    const workers = await this.call('processStatus', { service: 'doveadm' })
    const busy = (Array.isArray(workers) ? workers : [])
      .filter((worker) => worker.available_count === '0')
      .map((worker) => Number(worker.pid))
      .filter((pid) => pid > 1)
    const deadline = performance.now() + WORKERS_END_MS
    let left = busy.filter((pid) => sent(pid, 'SIGKILL'))
    while (left.length > 0 && performance.now() < deadline) {
      await delay(POLL_MS)
      left = left.filter((pid) => sent(pid, 0))
    }
  }

  async #ask(commands: readonly DoveadmCommand[], limits: Limits): Promise<Answers> {
    const body = JSON.stringify(commands.map(([name, args], n) => [name, args, String(n)]))
    try {
      return answersOf(await this.#post(body, limits))
    } catch (error: unknown) {
      limits.signal?.throwIfAborted()
      throw new PeerUnreachable(`doveadm at ${HOST}:${this.#settings.port}`, String(error), error)
    }
  }

  #post(body: string, { timeoutMs = COMMAND_MS, signal }: Limits): Promise<string> {
    const { port, key } = this.#settings
    return new Promise((resolve, reject) => {
      const outgoing = request({
        host: HOST,
        port,
        path: '/doveadm/v1',
        method: 'POST',
        agent: false,
        signal: AbortSignal.any([AbortSignal.timeout(timeoutMs), ...(signal ? [signal] : [])]),
        headers: {
          Authorization: `X-Dovecot-API ${Buffer.from(key).toString('base64')}`,
          'Content-Type': 'application/json',
          'Content-Length': Buffer.byteLength(body),
        },
      })
      outgoing.on('error', reject)
      outgoing.on('response', (response) => collect(response).then(resolve, reject))
      outgoing.end(body)
    })
  }
}

async function collect(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of response) {
    size += chunk.length
    if (size > ANSWER_BYTES_MAX) throw new Error('the answer is too long')
    chunks.push(chunk)
  }
  const text = Buffer.concat(chunks).toString('utf8')
  if (response.statusCode === 200) return text
  throw new Error(`HTTP status ${response.statusCode}: ${text.slice(0, 200)}`)
}

type Answers = ReadonlyMap<string, { readonly kind: string; readonly value: unknown }>

function answersOf(text: string): Answers {
  const data: unknown = JSON.parse(text)
  const answers = new Map<string, { kind: string; value: unknown }>()
  for (const item of Array.isArray(data) ? data : [])
    if (Array.isArray(item)) answers.set(String(item[2]), { kind: String(item[0]), value: item[1] })
  return answers
}

function refusal(command: string, value: unknown): DoveadmRefused {
  const exitCode =
    typeof value === 'object' && value !== null && 'exitCode' in value
      ? Number(value.exitCode)
      : undefined
  return new DoveadmRefused(command, exitCode, JSON.stringify(value ?? 'no answer'))
}

/** Whether there was such a process. */
function sent(pid: number, signal: NodeJS.Signals | 0): boolean {
  try {
    return process.kill(pid, signal)
  } catch (error: unknown) {
    if (error instanceof Error && 'code' in error && error.code === 'ESRCH') return false
    throw error
  }
}
