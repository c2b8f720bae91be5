import { chmod, mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import type { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { ImapFlow } from 'imapflow'
import { type Settings, settingsFrom } from '../../agent/config.ts'
import { BackSync } from '../../agent/replica/mail/backsync.ts'
import { openProduction, openReplica } from '../../agent/replica/mail/imap.ts'
import { Ledger } from '../../agent/replica/mail/ledger.ts'
import { productionFolders } from '../../agent/replica/mail/reading.ts'
import { settle, settleSubscriptions } from '../../agent/replica/mail/settle.ts'
import type { Log } from '../../firmware/log.ts'
import { type AccountDigest, digestOf } from './imap-digest.ts'
import {
  type LoopbackProduction,
  type LoopbackReplica,
  loopbackProduction,
  loopbackReplica,
  loopbackSettings,
} from './loopback-dovecot.ts'

type Work<T> = (client: ImapFlow) => Promise<T>

/** A production and an appliance's replica of it, both real, and what gives the one back to the other. */
export class BackSyncBed {
  readonly directory: string
  readonly production: LoopbackProduction
  readonly replica: LoopbackReplica
  readonly settings: Settings
  readonly ledger: Ledger
  readonly backSync: BackSync
  readonly events: string[] = []

  private constructor(parts: {
    directory: string
    production: LoopbackProduction
    replica: LoopbackReplica
    settings: Settings
  }) {
    this.directory = parts.directory
    this.production = parts.production
    this.replica = parts.replica
    this.settings = parts.settings
    this.ledger = Ledger.open(parts.replica.paths.ledger)
    const log: Log = (_, event) => this.events.push(event)
    this.backSync = new BackSync({
      settings: this.settings,
      ledger: this.ledger,
      doveadm: this.replica.doveadm,
      log,
      openProduction: (user, options) => openProduction(this.settings, user, options),
      openReplica: (user, options) => openReplica(this.replica.access, user, options),
    })
  }

  static async make(users: readonly string[]): Promise<BackSyncBed> {
    const directory = await mkdtemp(join(tmpdir(), `ut${process.pid}-`))
    await chmod(directory, 0o755)
    const production = await loopbackProduction(join(directory, 'p'), users)
    const data = loopbackSettings(production.directory, production.imapPort)
    const settings = settingsFrom(data, 'a test')
    const replica = await loopbackReplica(join(directory, 's'), settings)
    await Promise.all([production.server.start(), replica.dovecot.start()])
    return new BackSyncBed({ directory, production, replica, settings })
  }

  async close(): Promise<void> {
    await this.backSync.close()
    this.ledger.close()
    await Promise.all([this.production.server.stop(), this.replica.dovecot.stop()])
    await rm(this.directory, { recursive: true })
  }

  there<T>(user: string, work: Work<T>): Promise<T> {
    return using(openProduction(this.settings, user), work)
  }

  here<T>(user: string, work: Work<T>): Promise<T> {
    return using(openReplica(this.replica.access, user), work)
  }

  /** What replication does while production is well: pull until equal, and tell the ledger. */
  async replicate(user: string): Promise<void> {
    const { doveadm } = this.replica
    await doveadm.backup(user)
    await doveadm.backup(user)
    const stores = { doveadm, ledger: this.ledger }
    await settle(stores, user, await this.there(user, productionFolders))
    await settleSubscriptions(stores, user)
    this.ledger.record(user, { complete: true, gap: 'none' })
  }

  /** Where another process finds the replicator's doveadm. */
  async doveadmPort(): Promise<number> {
    const files = await readdir(this.replica.paths.run, { recursive: true })
    const conf = files.find((file) => file.endsWith('replicator.conf')) ?? ''
    const text = await readFile(join(this.replica.paths.run, conf), 'utf8')
    return Number(/inet_listener http \{[^}]*port = (\d+)/.exec(text)?.[1])
  }

  /** Both sides as clients see them. */
  async digests(user: string): Promise<{ here: AccountDigest; there: AccountDigest }> {
    return { here: await this.here(user, digestOf), there: await this.there(user, digestOf) }
  }
}

async function using<T>(opened: Promise<ImapFlow>, work: Work<T>): Promise<T> {
  const client = await opened
  try {
    return await work(client)
  } finally {
    await client.logout().catch(() => client.close())
  }
}

/** A small message, told apart by its Message-ID. */
export const mail = (id: string, bytes = 100): string =>
  `From: a@example.net\r\nSubject: ${id}\r\nMessage-ID: <${id}>\r\n\r\n${id} ${'x'.repeat(bytes)}\r\n`

/** Message-IDs of a folder by UID. */
export async function idsOf(client: ImapFlow, path: string): Promise<Map<number, string>> {
  const { exists } = await client.mailboxOpen(path, { readOnly: true })
  const ids = new Map<number, string>()
  if (exists === 0) return ids
  for await (const { uid, envelope } of client.fetch('1:*', { uid: true, envelope: true }))
    ids.set(uid, (envelope?.messageId ?? '').slice(1, -1))
  return ids
}

/** The same back-sync, but its connection to production breaks right after that many commands were sent. */
export function cutOff(
  bed: BackSyncBed,
  after: number,
): { backSync: BackSync; commands: () => number } {
  let commands = 0
  const backSync = new BackSync({
    settings: bed.settings,
    ledger: bed.ledger,
    doveadm: bed.replica.doveadm,
    log: () => {},
    openProduction: async (user, options) => {
      const client = await openProduction(bed.settings, user, options)
      onCommand(client, (socket) => {
        commands += 1
        if (commands === after) socket.destroySoon()
      })
      return client
    },
    openReplica: (user, options) => openReplica(bed.replica.access, user, options),
  })
  return { backSync, commands: () => commands }
}

/** Calls back after each command of a back-sync was handed to the socket; the many that only count up MODSEQs are one. */
export function onCommand(client: ImapFlow, sent: (socket: Socket) => void): void {
  const unbind = client.unbind.bind(client)
  client.unbind = () => {
    const parts = unbind()
    const socket = parts.socket as Socket
    const [write, uncork] = [socket.write.bind(socket), socket.uncork.bind(socket)]
    let line = ''
    let wasCounting = false
    socket.write = (chunk: string | Uint8Array, ...rest: unknown[]) => {
      if (typeof chunk === 'string') line += chunk
      return Reflect.apply(write, socket, [chunk, ...rest])
    }
    socket.uncork = () => {
      uncork()
      const isCounting = line.includes('FLAGS.SILENT (\\Flagged')
      if (!(isCounting && wasCounting)) sent(socket)
      wasCounting = isCounting
      line = ''
    }
    return parts
  }
}
