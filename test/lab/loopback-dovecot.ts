import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises'
import { connect, createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { Settings } from '../../agent/config.ts'
import { pathsOf } from '../../agent/paths.ts'
import { Doveadm } from '../../agent/replica/mail/doveadm.ts'
import { Dovecot, doveadmKey, replicatorConf } from '../../agent/serving/dovecot.ts'
import { endChild, startChild } from '../../firmware/child.ts'
import type { Log } from '../../firmware/log.ts'

/** TCP ports of 127.0.0.1 that nobody uses. */
export async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer().listen(0, '127.0.0.1'))
  await Promise.all(servers.map((server) => once(server, 'listening')))
  const ports = servers.map((server) => {
    const address = server.address()
    return typeof address === 'object' && address !== null ? address.port : 0
  })
  await Promise.all(servers.map((server) => once(server.close(), 'close')))
  return ports
}

async function accepting(port: number): Promise<void> {
  const open = () =>
    new Promise<boolean>((resolve) => {
      const socket = connect(port, '127.0.0.1')
      socket.on('connect', () => resolve(true)).on('error', () => resolve(false))
      socket.on('connect', () => socket.destroy())
    })
  for (const deadline = Date.now() + 20_000; !(await open()); await delay(20))
    if (Date.now() > deadline) throw new Error(`nothing listens on port ${port}`)
}

/** A Dovecot of its own, which a test may stop, freeze, kill and start again. */
export class LoopbackDovecot {
  readonly #conf: string
  readonly #ports: readonly number[]
  #child: ChildProcess | undefined

  constructor(conf: string, ports: readonly number[]) {
    this.#conf = conf
    this.#ports = ports
  }

  get pid(): number {
    return this.#child?.pid ?? 0
  }

  async start(): Promise<void> {
    this.#child = startChild(
      { program: 'dovecot', args: ['-F', '-c', this.#conf] },
      { stdio: 'ignore' },
    )
    await Promise.all(this.#ports.map(accepting))
  }

  async stop(): Promise<void> {
    if (this.#child !== undefined) await endChild(this.#child)
  }

  /** Sends a signal to every process of it: `SIGKILL`, or `SIGSTOP` and `SIGCONT`. */
  async signal(signal: NodeJS.Signals): Promise<void> {
    const listed = await readFile(`/proc/${this.pid}/task/${this.pid}/children`, 'utf8')
    for (const pid of [this.pid, ...listed.trim().split(' ').map(Number)])
      if (pid > 1) process.kill(pid, signal)
  }
}

export type LoopbackProduction = {
  readonly server: LoopbackDovecot
  readonly directory: string
  readonly imapPort: number
  readonly imapsPort: number
  readonly lmtpPort: number
}

export type Certificate = { readonly certificateFile: string; readonly keyFile: string }

/** Users log in with `<user>-secret`; `admin` may open their accounts as master user and by authzid. */
export async function loopbackProduction(
  directory: string,
  users: readonly string[],
  tls?: Certificate,
): Promise<LoopbackProduction> {
  const [imapPort = 0, lmtpPort = 0, imapsPort = 0] = await freePorts(3)
  await mkdir(join(directory, 'mail'), { recursive: true })
  await chmod(directory, 0o755)
  await chmod(join(directory, 'mail'), 0o777)
  await setUsers(directory, users)
  await writeFile(join(directory, 'admins'), 'admin:{PLAIN}admin-secret\n')
  await writeFile(join(directory, 'admin-password'), 'admin-secret\n')
  const conf = join(directory, 'dovecot.conf')
  await writeFile(conf, confOf(directory, imapPort, lmtpPort) + tlsOf(imapsPort, tls))
  const server = new LoopbackDovecot(conf, [imapPort, lmtpPort])
  return { server, directory, imapPort, imapsPort, lmtpPort }
}

/** The users that a production knows from now on. */
export function setUsers(directory: string, users: readonly string[]): Promise<void> {
  const lines = users.map((user) => `${user}:{PLAIN}${user}-secret\n`)
  return writeFile(join(directory, 'users'), lines.join(''))
}

/** The settings, as data, of an appliance that protects it. */
export const loopbackSettings = (directory: string, imapPort: number) => ({
  production: {
    addresses: [{ ipv4: '127.0.0.1' }],
    hostname: 'mail.example.test',
    domains: ['example.test'],
    services: [{ port: imapPort, protocol: 'imap', tls: 'none' }],
    admin: {
      user: 'admin',
      passwordFile: join(directory, 'admin-password'),
      method: 'authzid',
      imapPort,
      imapTls: 'none',
    },
    tls: { certificateFile: '/dev/null', keyFile: '/dev/null' },
  },
  accounts: { passwdFile: '/dev/null' },
  wire: { management: { mac: '02:00:00:00:00:01', ipv4: 'dhcp' } },
})

const confOf = (directory: string, imapPort: number, lmtpPort: number) => `
base_dir = ${directory}/run
state_dir = ${directory}/run
instance_name = production
log_path = ${directory}/log
protocols = imap lmtp
listen = 127.0.0.1
disable_plaintext_auth = no
mail_uid = mail
mail_gid = mail
first_valid_uid = 1
first_valid_gid = 1
mail_home = ${directory}/mail/%u
mail_location = mdbox:~/mdbox
auth_mechanisms = plain login
auth_master_user_separator = *
auth_failure_delay = 0
mail_max_userip_connections = 1000
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
service stats {
  unix_listener stats-writer {
    mode = 0666
  }
}
passdb {
  driver = passwd-file
  master = yes
  args = ${directory}/admins
  result_success = continue
}
passdb {
  driver = passwd-file
  args = ${directory}/users
}
userdb {
  driver = static
  args = uid=mail gid=mail home=${directory}/mail/%u
}
namespace inbox {
  inbox = yes
  separator = /
  mailbox Sent {
    special_use = \\Sent
  }
  mailbox Archive {
    special_use = \\Archive
  }
}
service imap-login {
  service_count = 0
  inet_listener imap {
    port = ${imapPort}
  }
}
service lmtp {
  inet_listener lmtp {
    port = ${lmtpPort}
  }
}
`

const tlsOf = (imapsPort: number, tls?: Certificate) => `
ssl = ${tls === undefined ? 'no' : 'yes'}
${tls === undefined ? '' : `ssl_cert = <${tls.certificateFile}\nssl_key = <${tls.keyFile}`}
service imap-login {
  inet_listener imaps {
    port = ${tls === undefined ? 0 : imapsPort}
  }
}
`

export type LoopbackReplica = {
  readonly dovecot: Dovecot
  readonly doveadm: Doveadm
  readonly access: { readonly key: string; readonly port: number }
  readonly paths: ReturnType<typeof pathsOf>
}

/** The replicator's Dovecot, as on the appliance but for its ports. */
export async function loopbackReplica(
  state: string,
  settings: Settings,
  log: Log = () => {},
): Promise<LoopbackReplica> {
  const [imapPort = 0, doveadmPort = 0] = await freePorts(2)
  const paths = pathsOf(state)
  const key = await doveadmKey(paths)
  const adminPassword = (await readFile(settings.production.admin.passwordFile, 'utf8')).trim()
  const conf = replicatorConf({ settings, paths, key, adminPassword, doveadmPort, imapPort })
  return {
    dovecot: new Dovecot({ name: 'replicator', conf, paths, log, doveadmPort, imapPort }),
    doveadm: new Doveadm({ port: doveadmPort, key }),
    access: { key, port: imapPort },
    paths,
  }
}

/** Delivers a message by LMTP (RFC 2033), as production's own MTA would. Answers when it was accepted. */
export function deliver(lmtpPort: number, user: string, message: string): Promise<void> {
  const dots = message.replaceAll(/^\./gm, '..')
  const said = [
    'LHLO test',
    'MAIL FROM:<a@example.net>',
    `RCPT TO:<${user}>`,
    'DATA',
    `${dots}\r\n.`,
  ]
  return new Promise((resolve, reject) => {
    const socket = connect(lmtpPort, '127.0.0.1')
    socket.setEncoding('utf8').on('error', reject)
    socket.on('data', (text) => {
      for (const line of String(text)
        .split('\r\n')
        .filter((part) => /^\d{3} /.test(part))) {
        if (!/^[23]/.test(line)) reject(new Error(line))
        const next = said.shift()
        if (next !== undefined) socket.write(`${next}\r\n`)
        else socket.end('QUIT\r\n', () => resolve())
      }
    })
  })
}
