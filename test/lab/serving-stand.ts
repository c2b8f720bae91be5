import { execFile } from 'node:child_process'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:net'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { type Settings, settingsFrom } from '../../agent/config.ts'
import { type Paths, pathsOf } from '../../agent/paths.ts'
import { Doveadm } from '../../agent/replica/mail/doveadm.ts'
import { type Admission, PasswordOracle } from '../../agent/serving/auth.ts'
import { deliveredQuery } from '../../agent/serving/delivery.ts'
import { Dovecot, doveadmKey, replicatorConf, serviceConf } from '../../agent/serving/dovecot.ts'
import { passwdEntries } from '../../agent/serving/passwd-file.ts'
import { MailFront } from '../../agent/serving/smtp.ts'
import type { Log } from '../../firmware/log.ts'

/** Everything that differs between stands; JSON, so that a child process can be given one. */
export type StandPlan = {
  readonly directory: string
  readonly ports: Readonly<Record<Port, number>>
  readonly serving?: object
  readonly accounts?: object
  readonly reserveBytes?: number
}
type Port =
  | 'imap'
  | 'imaps'
  | 'pop3'
  | 'smtp'
  | 'submission'
  | 'submissions'
  | 'doveadm'
  | 'replica'
const PORTS = 'imap imaps pop3 smtp submission submissions doveadm replica'.split(' ') as Port[]

export const PASSWD = `alice:{PLAIN}secret
bob:{SHA512-CRYPT}$6$CaKOz/s76uaHSSs7$jf5NSOxj.572gxjMapo3x2fHZ3Q2CLBty/w3LvGTZtiHqXHsPvJcGyf/CW3tjRcjbyVC.7YIqyPk22DYSw9uw.
late:{PLAIN}secret
`

const DOOR_OFFSET = 10_000

/** Ports that are free at present, with their neighbours for the door. */
export async function freePorts(): Promise<Record<Port, number>> {
  const found: number[] = []
  while (found.length < PORTS.length) {
    const port = 20_000 + Math.floor(Math.random() * 10_000)
    if (!found.includes(port) && (await isFree(port)) && (await isFree(port + DOOR_OFFSET)))
      found.push(port)
  }
  return Object.fromEntries(PORTS.map((name, n) => [name, found[n] ?? 0])) as Record<Port, number>
}

const isFree = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)))
  })

const listenOn = (port: number): Promise<Server> =>
  new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', reject)
    server.listen(port, '127.0.0.1', () => resolve(server))
  })

/** Settings, certificate and password file of a stand, on disk. */
export async function prepare(plan: StandPlan): Promise<Settings> {
  const { directory, ports } = plan
  const file = (name: string) => join(directory, name)
  await mkdir(directory, { recursive: true, mode: 0o755 })
  await promisify(execFile)('openssl', [
    ...'req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2'.split(' '),
    ...['-subj', '/CN=mail.example.org', '-addext', 'subjectAltName=DNS:mail.example.org'],
    ...['-keyout', file('key.pem'), '-out', file('cert.pem')],
  ])
  await writeFile(file('passwd'), PASSWD)
  const service = (protocol: string, port: number, tls: string) => ({ protocol, port, tls })
  return settingsFrom(
    {
      production: {
        addresses: [{ ipv4: '127.0.0.1' }],
        hostname: 'mail.example.org',
        domains: ['example.org'],
        services: [
          service('imap', ports.imap, 'starttls'),
          service('imap', ports.imaps, 'implicit'),
          service('pop3', ports.pop3, 'none'),
          service('smtp', ports.smtp, 'starttls'),
          service('submission', ports.submission, 'starttls'),
          service('submission', ports.submissions, 'implicit'),
        ],
        admin: { user: 'admin', passwordFile: file('admin') },
        tls: { certificateFile: file('cert.pem'), keyFile: file('key.pem') },
      },
      accounts: {
        passwdFile: file('passwd'),
        aliases: { 'team@example.org': ['alice', 'bob'] },
        ...plan.accounts,
      },
      wire: { management: { mac: '02:00:00:00:00:01', ipv4: 'dhcp' } },
      serving: plan.serving ?? {},
    },
    'stand',
  )
}

/** Both Dovecots, the oracle and the mail front over one store, on loopback. */
export class Stand {
  readonly settings: Settings
  readonly paths: Paths
  readonly front: MailFront
  readonly service: Dovecot
  readonly replicator: Dovecot
  readonly events: { readonly event: string; readonly fields: unknown }[] = []
  /** What `admit` says of a user: `ready` unless a test says otherwise. */
  readonly admissions = new Map<string, Admission>()
  readonly #oracle: PasswordOracle
  readonly #doveadm: Doveadm

  private constructor(plan: StandPlan, settings: Settings, key: string, pem: readonly string[]) {
    const log: Log = (_, event, fields) => this.events.push({ event, fields })
    const paths = pathsOf(join(plan.directory, 'state'))
    const { ports } = plan
    const admit = (user: string) => Promise.resolve(this.admissions.get(user) ?? 'ready')
    const users = passwdEntries(PASSWD)
    const socket = join(paths.run, 'oracle')
    const door = { address: '127.0.0.1', network: '127.0.0.0/8' }
    this.settings = settings
    this.paths = paths
    this.#doveadm = new Doveadm({ port: ports.doveadm, key })
    this.#oracle = new PasswordOracle({
      ...{ entries: users, domains: settings.production.domains, admit, socket, log },
    })
    this.service = new Dovecot({
      name: 'service',
      conf: serviceConf({ settings, paths, oracle: socket, listen: ['127.0.0.1'], door }),
      ...{ paths, log },
    })
    const own = { doveadmPort: ports.doveadm, imapPort: ports.replica }
    this.replicator = new Dovecot({
      name: 'replicator',
      conf: replicatorConf({ settings, paths, key, adminPassword: 'the admin', ...own }),
      ...{ paths, log, ...own },
    })
    this.front = new MailFront({
      ...{ settings, paths, users, admit, log },
      delivered: async (user, id) => (await this.search(user, deliveredQuery(id))).length > 0,
      tls: { certificate: pem[0] ?? '', key: pem[1] ?? '' },
      listen: ({ port }) => listenOn(port),
      retryMs: [200],
      secrets: { adminPassword: 'the admin' },
      ...(plan.reserveBytes === undefined
        ? {}
        : { queueLimits: { reserveBytes: plan.reserveBytes } }),
    })
  }

  static async start(plan: StandPlan): Promise<Stand> {
    const settings = await prepare(plan)
    const paths = pathsOf(join(plan.directory, 'state'))
    const { certificateFile, keyFile } = settings.production.tls
    const pem = await Promise.all([readFile(certificateFile, 'utf8'), readFile(keyFile, 'utf8')])
    const stand = new Stand(plan, settings, await doveadmKey(paths), pem)
    await stand.#oracle.listen()
    await Promise.all([stand.service.start(), stand.replicator.start()])
    await stand.front.listen()
    return stand
  }

  async stop(): Promise<void> {
    await this.front.close()
    await Promise.all([this.service.stop(), this.replicator.stop()])
    await this.#oracle.close()
  }

  async search(user: string, query: readonly string[]): Promise<readonly unknown[]> {
    return (await this.#doveadm.call('search', { user, query })) as readonly unknown[]
  }

  /** How many copies of each subject a user has, in all folders. */
  async subjects(user: string): Promise<Map<string, number>> {
    const rows = await this.#doveadm.call('fetch', { user, field: ['hdr.subject'], query: ['ALL'] })
    const counts = new Map<string, number>()
    for (const row of rows as readonly Readonly<Record<string, string>>[]) {
      const subject = row['hdr.subject'] ?? ''
      counts.set(subject, (counts.get(subject) ?? 0) + 1)
    }
    return counts
  }

  /** Waits until nothing is left in the queue. */
  async drained(deadlineMs = 30_000): Promise<void> {
    const end = performance.now() + deadlineMs
    while (this.front.queued > 0) {
      if (performance.now() > end) throw new Error(`${this.front.queued} messages left`)
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  }
}

// As a program: a stand that is meant to be killed. It says `ready` when it serves.
if (process.argv[2] === 'serve') {
  const stand = await Stand.start(JSON.parse(process.argv[3] ?? '') as StandPlan)
  stand.front.resume()
  process.stdout.write('ready\n')
}
