import { chown, mkdir, readdir, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { ADMIN, type HashedAccount, hashed } from './accounts.ts'
import type { CertificatePair } from './certificates.ts'
import { becomeDaemon } from './daemon.ts'
import { DOMAIN, namespaceOf } from './plan.ts'
import { processesIn, programOf, signalAll } from './processes.ts'
import {
  dovecotConf,
  dovecotConfPath,
  lmtpSocket,
  MAIL_UID,
  saslSocket,
} from './production-dovecot.ts'
import { mainCf, masterCf, postfixConfDirectory } from './production-postfix.ts'
import { here, inside } from './tools.ts'

const DOVECOT_MASTER = '/usr/sbin/dovecot'
const DOVECOT_SERVICES = '/usr/lib/dovecot/'
const POSTFIX_MASTER = '/usr/lib/postfix/sbin/master'
const POSTFIX_SERVICES = '/usr/lib/postfix/'
const STOP_GRACE_MS = 500
const STOP_POLL_MS = 20

/**
 * Production: Debian's Dovecot and Postfix in the production namespace, privately configured. It keeps no state of its
 * own: whatever process asks finds the servers by what runs in the namespace.
 */
export class Production {
  readonly #namespace: string
  readonly #dovecot: string
  readonly #postfix: string

  constructor(prefix: string, directory: string) {
    this.#namespace = namespaceOf(prefix, 'production')
    this.#dovecot = join(directory, 'production', 'dovecot')
    this.#postfix = join(directory, 'production', 'postfix')
  }

  /** Writes configuration and accounts. */
  async prepare(
    accounts: readonly HashedAccount[],
    certificate: CertificatePair,
    store: 'mdbox' | 'maildir',
  ): Promise<void> {
    const [dovecot, postfix] = [this.#dovecot, this.#postfix]
    await mkdir(join(dovecot, 'mail'), { recursive: true })
    await chown(join(dovecot, 'mail'), MAIL_UID, MAIL_UID)
    await writeFile(
      dovecotConfPath(dovecot),
      dovecotConf({ directory: dovecot, certificate, store }),
    )
    await writeFile(join(dovecot, 'users'), userFile(accounts))
    await writeFile(join(dovecot, 'masters'), userFile(await hashed([ADMIN])))

    const etc = postfixConfDirectory(postfix)
    await mkdir(join(postfix, 'queue'), { recursive: true })
    await mkdir(etc)
    await here('install', ['-d', '-o', 'postfix', join(postfix, 'data')])
    const site = {
      directory: postfix,
      certificate,
      lmtp: lmtpSocket(dovecot),
      sasl: saslSocket(dovecot),
    }
    await writeFile(join(etc, 'main.cf'), mainCf(site))
    await writeFile(join(etc, 'master.cf'), masterCf())
    const mailboxes = accounts.map(({ user }) => `${user}@${DOMAIN} ${user}\n`)
    await writeFile(join(etc, 'mailboxes'), mailboxes.join(''))
    await inside(this.#namespace, 'postfix', ['-c', etc, 'check'])
  }

  /** Starts what does not run. Answers when both accept connections. */
  async start(): Promise<void> {
    await Promise.all([this.startDovecot(), this.#startPostfix()])
  }

  async startDovecot(): Promise<void> {
    if ((await this.#running(DOVECOT_MASTER)).length > 0) return
    // A master that was killed may still have a process id until its parent has taken notice.
    await rm(join(this.#dovecot, 'run', 'master.pid'), { force: true })
    const args = ['-c', dovecotConfPath(this.#dovecot)]
    await becomeDaemon(this.#namespace, DOVECOT_MASTER, args, join(this.#dovecot, 'start.log'))
  }

  /** Answers when Dovecot has gone, with all its sessions: asked first, ended if it takes its time. */
  async stopDovecot(): Promise<void> {
    const all = () => this.#running(DOVECOT_MASTER, DOVECOT_SERVICES)
    await signalAll(() => this.#running(DOVECOT_MASTER), 'SIGTERM')
    const deadline = performance.now() + STOP_GRACE_MS
    while (performance.now() < deadline && (await all()).length > 0) await delay(STOP_POLL_MS)
    await signalAll(all, 'SIGKILL')
  }

  async #startPostfix(): Promise<void> {
    if ((await this.#running(POSTFIX_MASTER)).length > 0) return
    const args = ['-c', postfixConfDirectory(this.#postfix), '-w']
    await becomeDaemon(this.#namespace, POSTFIX_MASTER, args, join(this.#postfix, 'start.log'))
  }

  /** Sends a signal to every mail server's process: SIGKILL is a crash, SIGSTOP a hang, SIGCONT its end. */
  signal(name: 'SIGKILL' | 'SIGSTOP' | 'SIGCONT'): Promise<void> {
    return signalAll(() => this.#running(DOVECOT_MASTER, DOVECOT_SERVICES, POSTFIX_SERVICES), name)
  }

  /** How many mails Postfix has accepted and not yet delivered. */
  async queued(): Promise<number> {
    const queues = ['maildrop', 'incoming', 'active', 'deferred']
    const files = queues.map((name) => mailsUnder(join(this.#postfix, 'queue', name)))
    return (await Promise.all(files)).reduce((sum, count) => sum + count, 0)
  }

  /** The processes that run one of these programs; an entry that ends in a slash means all in that directory. */
  async #running(...programs: readonly string[]): Promise<number[]> {
    const pids = await processesIn(this.#namespace)
    const all = await Promise.all(pids.map(async (pid) => ({ pid, program: await programOf(pid) })))
    const runs = (program: string | undefined) =>
      program !== undefined &&
      programs.some((wanted) =>
        wanted.endsWith('/') ? program.startsWith(wanted) : program === wanted,
      )
    return all.filter(({ program }) => runs(program)).map(({ pid }) => pid)
  }
}

/** A line without the fields after the hash would be no user database entry. */
const userFile = (accounts: readonly HashedAccount[]): string =>
  accounts.map(({ user, hash }) => `${user}:${hash}::::::\n`).join('')

/** A file that may not be executed is a mail that Postfix never took: it died while it was writing (cleanup(8)). */
async function mailsUnder(directory: string): Promise<number> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true })
  const files = entries.filter((entry) => entry.isFile())
  const taken = await Promise.all(
    files.map(async ({ parentPath, name }) => {
      // It may have been delivered since it was listed.
      const mode = await stat(join(parentPath, name)).then(
        (found) => found.mode,
        () => 0,
      )
      return (mode & 0o100) !== 0
    }),
  )
  return taken.filter(Boolean).length
}
