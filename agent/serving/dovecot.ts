import type { ChildProcess } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import {
  chmod,
  chown,
  mkdir,
  readdir,
  readFile,
  readlink,
  rm,
  stat,
  writeFile,
} from 'node:fs/promises'
import { createConnection, type NetConnectOpts } from 'node:net'
import { dirname, join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { endChild, startChild } from '../../firmware/child.ts'
import { inNamespace } from '../../firmware/command.ts'
import type { Log } from '../../firmware/log.ts'
import type { Paths } from '../paths.ts'
import { DOVEADM_PORT, type DovecotConf, MAIL_UID, REPLICA_IMAP_PORT } from './dovecot-conf.ts'
import { eachLine } from './lines.ts'

export {
  DOVEADM_PORT,
  REPLICA_IMAP_PORT,
  REPLICA_MASTER,
  replicatorConf,
  serviceConf,
} from './dovecot-conf.ts'

/** sockaddr_un holds 107 bytes and a NUL; Dovecot's longest socket name below its base_dir has 29. */
const BASE_BYTES_MAX = 107 - 29
const START_MS = 30_000
const POLL_MS = 50
const STOP_MS = 10_000
const TAIL_LINES = 40
const RESTARTS_MAX = 6
const BACKOFF_MS = { first: 500, most: 30_000 }
/** An instance that ran this long had started well: its end is not counted with those before. */
const STEADY_MS = 600_000

/** Dovecot did not start, or ended again and again. The message ends with the last lines that it logged. */
export class DovecotFailed extends Error {
  override readonly name = 'DovecotFailed'
  readonly tail: readonly string[]

  constructor(because: string, tail: readonly string[]) {
    super([because, ...tail.slice(-8)].join('\n'))
    this.tail = tail
  }
}

export type DovecotOptions = {
  readonly name: 'service' | 'replicator'
  readonly conf: DovecotConf
  /** Network namespace (ip-netns(8)) in which it listens; absent: this one. */
  readonly namespace?: string
  readonly paths: Paths
  readonly log: Log
  /** The replicator's ports, when they are not the usual ones. */
  readonly doveadmPort?: number
  readonly imapPort?: number
}

/** The key of the doveadm API: made once per run directory, readable by root alone. */
export async function doveadmKey(paths: Paths): Promise<string> {
  const file = join(paths.run, 'doveadm.key')
  await mkdir(paths.run, { recursive: true })
  try {
    await writeFile(file, randomBytes(32).toString('hex'), { flag: 'wx', mode: 0o600 })
  } catch (error: unknown) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
  }
  return readFile(file, 'utf8')
}

/** One running Dovecot: a child of this process, that ends with it. */
export class Dovecot {
  readonly #options: DovecotOptions
  readonly #base: string
  readonly #conf: string
  #tail: string[] = []
  #child: ChildProcess | undefined
  #restarting: Promise<void> | undefined

  constructor(options: DovecotOptions) {
    this.#options = options
    this.#base = join(options.paths.run, options.name)
    this.#conf = join(options.paths.run, `${options.name}.conf`)
    if (Buffer.byteLength(this.#base) > BASE_BYTES_MAX)
      throw new RangeError(
        `${this.#base}: longer than ${BASE_BYTES_MAX} bytes, sockets below it cannot be made; choose a shorter state directory`,
      )
  }

  /** Its configuration file, for doveadm(1). */
  get configuration(): string {
    return this.#conf
  }

  /** Process id of the master, while it runs. */
  get pid(): number | undefined {
    return this.#child?.pid
  }

  /** Answers when users would be answered. @throws {DovecotFailed} */
  async start(): Promise<void> {
    await this.#makeDirectories()
    await this.#endPrevious()
    for (const { path, text } of this.#options.conf.files) await writeFile(path, text)
    // It holds passwords, hence not even for an instant readable by others.
    await rm(this.#conf, { force: true })
    await writeFile(this.#conf, this.#options.conf.text, { mode: 0o600 })
    const child = this.#spawn()
    const deadline = performance.now() + START_MS
    for (;;) {
      if (ended(child)) throw this.#failed('ended while starting')
      if (await this.#answers()) return
      if (performance.now() > deadline) {
        await endChild(child, STOP_MS)
        throw this.#failed(`does not answer after ${START_MS} ms`)
      }
      await delay(POLL_MS)
    }
  }

  /**
   * Answers when it is gone, and with it every session. Dovecot lets a session that was not idle for ten seconds live
   * on without its master: after the next pull it would write into folders that have been made anew.
   */
  async stop(): Promise<void> {
    if (this.#child !== undefined) await endChild(this.#child, STOP_MS)
    this.#child = undefined
    await this.#endSessions()
  }

  /** Ends every session by starting anew; `run` takes that for no failure. Answers when it answers again. @throws {DovecotFailed} */
  async restart(): Promise<void> {
    this.#restarting = this.stop().then(() => this.start())
    await this.#restarting.finally(() => {
      this.#restarting = undefined
    })
  }

  /**
   * Keeps it running until the signal aborts, then stops it. It is started if it is not running yet.
   * @throws {DovecotFailed} after `RESTARTS_MAX` ends in a row
   */
  async run(signal: AbortSignal): Promise<void> {
    let restarts = 0
    try {
      while (!signal.aborted) {
        const startedMs = performance.now()
        const problem = await this.#runOnce(signal)
        if (signal.aborted) return
        if (this.#restarting !== undefined) {
          // Whoever asked for it hears how it went.
          await this.#restarting.catch(() => undefined)
          continue
        }
        restarts = performance.now() - startedMs > STEADY_MS ? 1 : restarts + 1
        this.#options.log('error', 'dovecot.ended', {
          instance: this.#options.name,
          restarts,
          problem,
        })
        if (restarts > RESTARTS_MAX) throw this.#failed(`ended ${restarts} times in a row`)
        const backoffMs = Math.min(BACKOFF_MS.first * 2 ** (restarts - 1), BACKOFF_MS.most)
        await delay(backoffMs, undefined, { signal }).catch(() => undefined)
      }
    } finally {
      await this.stop()
    }
  }

  async #runOnce(signal: AbortSignal): Promise<string> {
    try {
      if (this.#child === undefined || ended(this.#child)) await this.start()
    } catch (error: unknown) {
      if (error instanceof DovecotFailed) return error.message
      throw error
    }
    const child = this.#child
    if (child !== undefined && !ended(child))
      await new Promise<void>((resolve) => {
        child.once('exit', () => resolve())
        signal.addEventListener('abort', () => resolve(), { once: true })
        if (signal.aborted) resolve()
      })
    return `exit code ${child?.exitCode}, signal ${child?.signalCode}`
  }

  #spawn(): ChildProcess {
    const { name, namespace, log } = this.#options
    const command = { program: 'dovecot', args: ['-F', '-c', this.#conf] }
    const child = startChild(namespace === undefined ? command : inNamespace(namespace, command), {
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    this.#child = child
    this.#tail = []
    // A program that cannot be started has no pid, and `ended` says so.
    child.on('error', (error) => this.#tail.push(error.message))
    if (child.stderr !== null)
      eachLine(child.stderr, (line) => {
        this.#tail = [...this.#tail.slice(1 - TAIL_LINES), line]
        const grave = /\b(Error|Fatal|Panic): /.test(line)
        log(grave ? 'warn' : 'debug', 'dovecot.said', { instance: name, line })
      })
    return child
  }

  #failed(because: string): DovecotFailed {
    return new DovecotFailed(`dovecot (${this.#options.name}) ${because}`, this.#tail)
  }

  /** Every process of Dovecot has its own user: it must be able to pass, though not to look around. */
  async #makeDirectories(): Promise<void> {
    const { state, mail, run } = this.#options.paths
    for (const path of [state, run]) {
      await mkdir(path, { recursive: true })
      await chmod(path, ((await stat(path)).mode & 0o777) | 0o111)
    }
    for (let path = dirname(state); path !== '/'; path = dirname(path))
      if (((await stat(path)).mode & 0o001) === 0)
        throw new DovecotFailed(`cannot use ${state}: ${path} may not be passed by others`, [])
    await mkdir(mail, { recursive: true, mode: 0o700 })
    await chown(mail, MAIL_UID, MAIL_UID)
  }

  /** An instance whose parent was killed may still be going; one that is gone has left its pid behind. */
  async #endPrevious(): Promise<void> {
    const pidFile = join(this.#base, 'master.pid')
    const pid = Number(await readOrEmpty(pidFile))
    const ours = async () =>
      pid > 1 && (await readOrEmpty(`/proc/${pid}/cmdline`)).split('\0').includes(this.#conf)
    const started = performance.now()
    let impatient = false
    while (await ours()) {
      const waitedMs = performance.now() - started
      if (waitedMs > 2 * STOP_MS) throw this.#failed(`is still there as process ${pid}`)
      if (!impatient) signalTo(pid, 'SIGTERM')
      else signalTo(pid, 'SIGKILL')
      impatient = waitedMs > STOP_MS
      await delay(POLL_MS)
    }
    await rm(pidFile, { force: true })
    await this.#endSessions()
  }

  /**
   * Sessions and login processes outlive a master, and one that was killed in an earlier life of this agent too. They
   * go by their titles and the directory that they work in: another appliance on this machine has its own.
   */
  async #endSessions(): Promise<void> {
    const title = `dovecot-understudy-${this.#options.name}/`
    const left = async () => {
      const pids: number[] = []
      for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
        if (!(await readOrEmpty(`/proc/${pid}/cmdline`)).startsWith(title)) continue
        const directory = await readlink(`/proc/${pid}/cwd`).catch(() => '')
        if (`${directory}/`.startsWith(`${this.#options.paths.state}/`)) pids.push(Number(pid))
      }
      return pids
    }
    const started = performance.now()
    for (let pids = await left(); pids.length > 0; pids = await left()) {
      if (performance.now() - started > STOP_MS) throw this.#failed(`has processes left: ${pids}`)
      for (const pid of pids) signalTo(pid, 'SIGKILL')
      await delay(POLL_MS)
    }
  }

  async #answers(): Promise<boolean> {
    const { name, doveadmPort = DOVEADM_PORT, imapPort = REPLICA_IMAP_PORT } = this.#options
    const spoken =
      name === 'service'
        ? [
            says({ path: join(this.#base, 'lmtp') }, '', '220'),
            says({ path: join(this.#base, 'auth-client') }, '', 'DONE'),
          ]
        : [
            says({ host: '127.0.0.1', port: doveadmPort }, 'GET / HTTP/1.0\r\n\r\n', 'HTTP/1.1'),
            says({ host: '127.0.0.1', port: imapPort }, '', '* OK'),
          ]
    return (await Promise.all(spoken)).every(Boolean)
  }
}

const ended = (child: ChildProcess): boolean =>
  child.pid === undefined || child.exitCode !== null || child.signalCode !== null

const readOrEmpty = (path: string): Promise<string> => readFile(path, 'utf8').catch(() => '')

const signalTo = (pid: number, signal: NodeJS.Signals): void => {
  try {
    process.kill(pid, signal)
  } catch (error: unknown) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
}

const ANSWER_MS = 2_000

/** Whether the peer says `expected`, after having been told `hello`. */
const says = (to: NetConnectOpts, hello: string, expected: string): Promise<boolean> =>
  new Promise((resolve) => {
    let heard = ''
    const socket = createConnection(to, () => socket.write(hello))
    const settle = (answer: boolean) => {
      socket.destroy()
      resolve(answer)
    }
    socket.setTimeout(ANSWER_MS, () => settle(false))
    socket.on('data', (chunk) => {
      heard += chunk.toString('latin1')
      if (heard.includes(expected)) settle(true)
    })
    socket.on('error', () => settle(false))
    socket.on('close', () => settle(false))
  })
