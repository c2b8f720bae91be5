import { Agent, type IncomingMessage, request } from 'node:http'
import { PeerUnreachable } from './imap.ts'

/** A doveadm command that was refused, with the exit code it would have on the command line (sysexits.h). */
export class DoveadmRefused extends Error {
  override readonly name = 'DoveadmRefused'
  readonly command: string
  /** Absent when the API itself refused: unknown command, unknown argument, wrong key. */
  readonly exitCode: number | undefined

  constructor(command: string, exitCode: number | undefined, because: string) {
    super(`doveadm ${command}: ${because}`)
    this.command = command
    this.exitCode = exitCode
  }
}

/** A command of the API in camel case with its arguments, e.g. `['mailboxStatus', {user, field: ['all'], …}]`. */
export type DoveadmCommand = readonly [name: string, args: Readonly<Record<string, unknown>>]

export type DoveadmSettings = {
  readonly port: number
  readonly key: string
  readonly host?: string
}

const COMMAND_MS = 60_000
/** A first copy of a mailbox of hundreds of gigabytes ends within this time. */
const BACKUP_MS = 12 * 3_600_000
const SOCKETS_MAX = 64
const IDLE_SOCKETS_MAX = 8
const ANSWER_BYTES_MAX = 64 * 1024 * 1024

/**
 * Dovecot's doveadm over its HTTP API: no process is started for a command, connections stay open
 * (https://doc.dovecot.org/2.3/admin_manual/doveadm_http_api/).
 */
export class Doveadm {
  readonly #settings: DoveadmSettings
  readonly #agent = new Agent({
    keepAlive: true,
    maxSockets: SOCKETS_MAX,
    maxFreeSockets: IDLE_SOCKETS_MAX,
  })

  constructor(settings: DoveadmSettings) {
    this.#settings = settings
  }

  close(): void {
    this.#agent.destroy()
  }

  /** Runs one command and answers its result. @throws {DoveadmRefused} {PeerUnreachable} */
  async call(
    name: string,
    args: Readonly<Record<string, unknown>>,
    options: { timeoutMs?: number; signal?: AbortSignal } = {},
  ): Promise<unknown> {
    const [result] = await this.batch([[name, args]], options)
    return result
  }

  /**
   * Runs commands one after the other in one request and answers their results in the same order.
   * @throws {DoveadmRefused} for the first that was refused (the later ones were run nevertheless). {PeerUnreachable}
   */
  async batch(
    commands: readonly DoveadmCommand[],
    { timeoutMs = COMMAND_MS, signal }: { timeoutMs?: number; signal?: AbortSignal } = {},
  ): Promise<unknown[]> {
    const body = JSON.stringify(commands.map(([name, args], n) => [name, args, String(n)]))
    const answers = answersOf(await this.#post(body, timeoutMs, signal))
    return commands.map(([name], n) => {
      const answer = answers.get(String(n))
      if (answer?.kind === 'doveadmResponse') return answer.value
      throw refusal(name, answer?.value)
    })
  }

  /**
   * Makes the replica of an account, or of one folder of it, equal to production (`doveadm backup -R … imapc:`).
   * Exit code 0: done; 75: production could not be read, or folders that had diverged were dropped from the replica
   * and will be pulled by the next run (doveadm-sync(1)). @throws {PeerUnreachable} {DoveadmRefused} without exit code
   */
  async backup(
    user: string,
    mailbox?: string,
    signal?: AbortSignal,
  ): Promise<{ readonly exitCode: number }> {
    const args = { user, reverseSync: true, destination: ['imapc:'] }
    try {
      await this.call('backup', mailbox === undefined ? args : { ...args, mailbox }, {
        timeoutMs: BACKUP_MS,
        ...(signal === undefined ? {} : { signal }),
      })
      return { exitCode: 0 }
    } catch (error: unknown) {
      if (error instanceof DoveadmRefused && error.exitCode !== undefined)
        return { exitCode: error.exitCode }
      throw error
    }
  }

  async #post(body: string, timeoutMs: number, signal: AbortSignal | undefined): Promise<string> {
    const { host = '127.0.0.1', port } = this.#settings
    try {
      return await this.#postOnce(body, timeoutMs, signal).catch((error: unknown) => {
        if (error instanceof StaleConnection) return this.#postOnce(body, timeoutMs, signal)
        throw error
      })
    } catch (error: unknown) {
      signal?.throwIfAborted()
      throw new PeerUnreachable(`doveadm at ${host}:${port}`, String(error), error)
    }
  }

  #postOnce(body: string, timeoutMs: number, signal: AbortSignal | undefined): Promise<string> {
    const { host = '127.0.0.1', port, key } = this.#settings
    return new Promise((resolve, reject) => {
      const outgoing = request({
        host,
        port,
        path: '/doveadm/v1',
        method: 'POST',
        agent: this.#agent,
        signal: AbortSignal.any([AbortSignal.timeout(timeoutMs), ...(signal ? [signal] : [])]),
        headers: {
          Authorization: `X-Dovecot-API ${Buffer.from(key).toString('base64')}`,
          'Content-Type': 'application/json',
          'Content-Length': Buffer.byteLength(body),
        },
      })
      outgoing.on('error', (error) => {
        const reset = 'code' in error && error.code === 'ECONNRESET'
        reject(reset && outgoing.reusedSocket ? new StaleConnection() : error)
      })
      outgoing.on('response', (response) => collect(response).then(resolve, reject))
      outgoing.end(body)
    })
  }
}

/** Dovecot closed an idle connection just as it was used again: the request was not read and goes out once more. */
class StaleConnection extends Error {
  override readonly name = 'StaleConnection'
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

type Answer = { readonly kind: string; readonly value: unknown }

function answersOf(text: string): ReadonlyMap<string, Answer> {
  const data: unknown = JSON.parse(text)
  const answers = new Map<string, Answer>()
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
