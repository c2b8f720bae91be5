// Goal: the replica becomes and stays identical to production, whatever happens to either or between them.
// Method: two real Dovecots on loopback; both are read by IMAP and compared UID by UID, bodies by SHA-256.
import { chmod, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { ImapFlow } from 'imapflow'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { type Settings, settingsFrom } from '../../agent/config.ts'
import {
  CertificateUnexpected,
  CredentialRefused,
  openProduction,
  openReplica,
} from '../../agent/replica/mail/imap.ts'
import { Ledger } from '../../agent/replica/mail/ledger.ts'
import { Replicator } from '../../agent/replica/mail/replicator.ts'
import { systemClock } from '../../firmware/clock.ts'
import { run } from '../../firmware/command.ts'
import type { Fields } from '../../firmware/log.ts'
import { type AccountDigest, compareDigests, digestOf } from './imap-digest.ts'
import {
  type Certificate,
  deliver,
  type LoopbackProduction,
  type LoopbackReplica,
  loopbackProduction,
  loopbackReplica,
  loopbackSettings,
  setUsers,
} from './loopback-dovecot.ts'

const PATIENCE_MS = 60_000
const FOLDERS = ['Sent', 'Archive', 'Archive/2024', 'Ärger & Fröhlich', '日本語/会議', 'A/B/C']

type Bed = {
  readonly directory: string
  readonly production: LoopbackProduction
  readonly settings: Settings
  readonly replica: LoopbackReplica
  readonly ledger: Ledger
  readonly events: { readonly event: string; readonly fields: Fields }[]
  readonly stop: () => Promise<void>
}

async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  for (const deadline = Date.now() + PATIENCE_MS; !(await holds()); await delay(10))
    if (Date.now() > deadline) throw new Error(`never: ${what}`)
}

async function makeBed(users: readonly string[], sweepMs = 600_000): Promise<Bed> {
  const directory = await mkdtemp(join(tmpdir(), `ut${process.pid}-`))
  await chmod(directory, 0o755)
  const production = await loopbackProduction(join(directory, 'p'), users)
  const data = loopbackSettings(production.directory, production.imapPort)
  const settings = settingsFrom({ ...data, replication: { checkMs: 500, sweepMs } }, 'a test')
  const replica = await loopbackReplica(join(directory, 's'), settings)
  await Promise.all([production.server.start(), replica.dovecot.start()])
  const ledger = Ledger.open(replica.paths.ledger)
  const stop = async () => {
    ledger.close()
    await Promise.all([production.server.stop(), replica.dovecot.stop()])
    await rm(directory, { recursive: true })
  }
  return { directory, production, settings, replica, ledger, events: [], stop }
}

/** Runs a replicator while `work` runs, and ends it. */
async function replicating(
  bed: Bed,
  users: readonly string[],
  work: (replicator: Replicator) => Promise<void>,
): Promise<void> {
  const { settings, ledger, replica, events } = bed
  const ending = new AbortController()
  const replicator = new Replicator({
    settings,
    users,
    ledger,
    doveadm: replica.doveadm,
    clock: systemClock,
    log: (_, event, fields = {}) => events.push({ event, fields }),
  })
  const running = replicator.run(ending.signal)
  try {
    await Promise.race([work(replicator), running])
  } finally {
    ending.abort()
    await running
  }
}

async function atProduction(
  { settings }: Bed,
  user: string,
  work: (client: ImapFlow) => Promise<void>,
): Promise<void> {
  const client = await openProduction(settings, user)
  try {
    await work(client)
  } finally {
    await client.logout()
  }
}

async function fill(bed: Bed, user: string, messages = 30): Promise<void> {
  await atProduction(bed, user, async (client) => {
    for (const folder of FOLDERS) await client.mailboxCreate(folder)
    await client.mailboxCreate('Once')
    await client.mailboxDelete('Once')
    await client.mailboxUnsubscribe('Archive/2024')
    const flags = [[], ['\\Seen'], ['\\Seen', '$Label1'], ['\\Flagged', 'Projekt'], ['\\Deleted']]
    for (let n = 0; n < messages; n += 1) {
      const folder = n % 2 === 0 ? 'INBOX' : (FOLDERS[n % FOLDERS.length] ?? 'INBOX')
      const text = `Subject: ${user} ${n}\r\nMessage-ID: <${n}@${user}>\r\n\r\n${'x'.repeat(n * 97)}\r\n`
      await client.append(folder, text, flags[n % 5], new Date(1_700_000_000_000 + n * 3_600_000))
    }
    await client.mailboxOpen('INBOX')
    await client.messageDelete('2,4:6', { uid: true })
  })
}

async function digests({ settings, replica }: Bed, user: string) {
  const clients = [await openProduction(settings, user), await openReplica(replica.access, user)]
  try {
    const [production, copy] = await Promise.all(clients.map(digestOf))
    assert.ok(production !== undefined && copy !== undefined)
    return { production, copy }
  } finally {
    await Promise.all(clients.map((client) => client.logout()))
  }
}

/** Differences between production, replica and ledger, in words. */
async function compared(bed: Bed, user: string): Promise<string[]> {
  const { production, copy } = await digests(bed, user)
  return [...compareDigests(production, copy), ...ledgerDifferences(bed.ledger, user, copy)]
}

function ledgerDifferences(ledger: Ledger, user: string, copy: AccountDigest): string[] {
  const words: string[] = []
  const known = ledger.folders(user).map(({ path }) => path)
  for (const path of known) if (!copy.folders.has(path)) words.push(`ledger knows ${path}`)
  for (const [path, { uidValidity, uidNext, messages }] of copy.folders) {
    const folder = ledger.folder(user, path)
    const text = [...(folder?.messages ?? [])].map(([uid, flags]) => `${uid} ${flags.join(' ')}`)
    const wanted = [...messages].map(([uid, { flags }]) => `${uid} ${flags}`)
    if (text.sort().join('\n') !== wanted.sort().join('\n')) words.push(`ledger: ${path} differs`)
    if (folder?.uidValidity !== uidValidity || folder.uidNext !== uidNext)
      words.push(`ledger: state of ${path} differs`)
  }
  if (ledger.subscriptions(user).join() !== copy.subscriptions.join())
    words.push('ledger: subscriptions differ')
  return words
}

async function identical(bed: Bed, user: string): Promise<void> {
  let words: string[] = []
  await until(`${user} is identical`, async () => {
    // Folders may go while they are read.
    words = await compared(bed, user).catch((error: unknown) => [String(error)])
    return words.length === 0
  }).catch((error: unknown) => {
    throw new Error(words.join('; '), { cause: error })
  })
}

const seen = ({ events }: Bed, name: string) => events.some(({ event }) => event === name)

const complete = (replicator: Replicator, count: number) =>
  until(`${count} accounts are complete`, () => replicator.status().complete === count)

const test = suite('replica')

test('accounts of every make become complete and identical, and one that cannot be opened delays none', async () => {
  const users = ['anna', 'bert', 'carl']
  const bed = await makeBed(users)
  try {
    await Promise.all(users.map((user) => fill(bed, user)))
    const refused = await openProduction(bed.settings, 'dora').catch((error: unknown) => error)
    assert.instance(refused, CredentialRefused)
    await replicating(bed, ['dora', ...users], async (replicator) => {
      await complete(replicator, 3)
      await until('the refused account is listed', () =>
        replicator.status().accounts.some(({ state }) => state === 'failing'),
      )
      const dora = replicator.status().accounts.find(({ user }) => user === 'dora')
      assert.match(String(dora?.error), /account dora.*production\.admin/)
      assert.is(dora?.complete, false)
      for (const user of users) assert.equal(await compared(bed, user), [])
      await setUsers(bed.production.directory, ['dora', ...users])
      await complete(replicator, 4)
      assert.is(bed.ledger.account('dora').failures, 0)
    })
    assert.ok(bed.ledger.account('anna').complete)
    assert.ok(bed.ledger.account('anna').passes > 0)
  } finally {
    await bed.stop()
  }
})

/** A certificate for `mail.example.test`, signed by an authority that nobody trusts. */
async function certificate(directory: string, name: string): Promise<Certificate> {
  const file = (suffix: string) => join(directory, `${name}.${suffix}`)
  const openssl = (...args: string[]) => run({ program: 'openssl', args }, { timeoutMs: 30_000 })
  const fresh = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes']
  const authority = ['-keyout', file('ca-key'), '-out', file('ca')]
  await openssl('req', '-x509', ...fresh, ...authority, '-subj', '/CN=Nobody', '-days', '2')
  await openssl(
    'req',
    ...fresh,
    '-keyout',
    file('key'),
    '-out',
    file('csr'),
    '-subj',
    `/CN=${name}`,
  )
  const signing = ['-CA', file('ca'), '-CAkey', file('ca-key'), '-CAcreateserial', '-days', '1']
  await openssl('x509', '-req', '-in', file('csr'), ...signing, '-out', file('pem'))
  return { certificateFile: file('pem'), keyFile: file('key') }
}

test('production is known by its certificate, whoever signed it, and another one gets no password', async () => {
  const directory = await mkdtemp(join(tmpdir(), `ut${process.pid}-`))
  await chmod(directory, 0o755)
  const own = await certificate(directory, 'mail.example.test')
  const other = await certificate(directory, 'other.example.test')
  const production = await loopbackProduction(join(directory, 'p'), ['anna'], own)
  const data = loopbackSettings(production.directory, production.imapPort)
  const settings = (tls: Certificate, admin: Record<string, unknown>) =>
    settingsFrom(
      {
        ...data,
        production: { ...data.production, tls, admin: { ...data.production.admin, ...admin } },
      },
      'a test',
    )
  const ways = [
    { method: 'authzid', imapTls: 'starttls' },
    { method: 'authzid', imapTls: 'implicit', imapPort: production.imapsPort },
    { method: 'master-user', imapTls: 'starttls' },
    { method: 'master-user', imapTls: 'none' },
  ]
  try {
    await production.server.start()
    for (const way of ways) {
      const client = await openProduction(settings(own, way), 'anna')
      assert.is(client.secureConnection, way.imapTls !== 'none')
      await client.logout()
    }
    for (const way of ways.slice(0, 2)) {
      const error = await openProduction(settings(other, way), 'anna').catch((e: unknown) => e)
      assert.instance(error, CertificateUnexpected)
    }
  } finally {
    await production.server.stop()
    await rm(directory, { recursive: true })
  }
})

test('changes are followed: messages, flags, moves, expunges, folders and subscriptions', async () => {
  const bed = await makeBed(['anna'])
  try {
    await fill(bed, 'anna')
    await replicating(bed, ['anna'], async (replicator) => {
      await complete(replicator, 1)
      await atProduction(bed, 'anna', async (client) => {
        await client.append('Sent', 'Subject: new\r\n\r\nnew\r\n', ['\\Seen'])
        await client.mailboxOpen('INBOX')
        await client.messageFlagsAdd('7:9', ['\\Answered', 'NonJunk'], { uid: true })
        await client.messageFlagsRemove('1', ['\\Seen'], { uid: true })
        await client.messageMove('10', 'Archive', { uid: true })
      })
      await identical(bed, 'anna')
      await atProduction(bed, 'anna', async (client) => {
        await client.mailboxOpen('INBOX')
        await client.messageDelete('8', { uid: true })
      })
      await identical(bed, 'anna')
      await atProduction(bed, 'anna', async (client) => {
        await client.mailboxRename('Ärger & Fröhlich', 'Gut/Gelaunt')
        await client.mailboxDelete('A/B/C')
        await client.mailboxCreate('Neu/日本')
        await client.append('Neu/日本', 'Subject: there\r\n\r\nthere\r\n')
        await client.mailboxDelete('Archive/2024')
        await client.mailboxCreate('Archive/2024')
      })
      await identical(bed, 'anna')
      await atProduction(bed, 'anna', async (client) => {
        await client.mailboxUnsubscribe('Sent')
        await client.mailboxSubscribe('Archive')
      })
      await identical(bed, 'anna')
      assert.is(replicator.status().complete, 1)
    })
  } finally {
    await bed.stop()
  }
})

test('a production that dies in the middle of passes is copied once it is back', async () => {
  const users = ['anna', 'bert', 'carl', 'dora']
  const bed = await makeBed(users)
  try {
    await Promise.all(users.map((user) => fill(bed, user, 60)))
    await replicating(bed, users, async (replicator) => {
      await until('a pass runs', () =>
        replicator.status().accounts.some(({ state }) => state === 'copying'),
      )
      await delay(20)
      await bed.production.server.signal('SIGKILL')
      await until('the loss is noticed', () => replicator.status().lost !== undefined)
      assert.ok(replicator.status().complete < users.length)
      await delay(1_500)
      const lost = bed.events.filter(({ event }) => event === 'peer.lost')
      assert.is(lost.length, 1, 'no storm of log lines')
      await bed.production.server.stop()
      await bed.production.server.start()
      replicator.hint(undefined)
      await complete(replicator, users.length)
      for (const user of users) assert.equal(await compared(bed, user), [])
      assert.is(replicator.status().lost, undefined)
    })
  } finally {
    await bed.stop()
  }
})

test('while paused nothing is pulled, afterwards everything is', async () => {
  const bed = await makeBed(['anna'])
  try {
    await fill(bed, 'anna')
    await replicating(bed, ['anna'], async (replicator) => {
      await complete(replicator, 1)
      await replicator.pause()
      const before = await digests(bed, 'anna')
      await deliver(bed.production.lmtpPort, 'anna', 'Subject: meanwhile\r\n\r\nmeanwhile')
      replicator.hint('anna', 'INBOX')
      await delay(1_000)
      const after = await digests(bed, 'anna')
      assert.equal(compareDigests(before.copy, after.copy), [])
      assert.is.not(compareDigests(after.production, after.copy).length, 0)
      await replicator.settle('anna')
      replicator.resume()
      await identical(bed, 'anna')
    })
  } finally {
    await bed.stop()
  }
})

test('a pause does not wait for a production that is frozen, and nothing is written when it wakes up', async () => {
  const users = ['anna', 'bert', 'carl']
  const bed = await makeBed(users)
  try {
    await Promise.all(users.map((user) => fill(bed, user)))
    await replicating(bed, users, async (replicator) => {
      await complete(replicator, users.length)
      await bed.production.server.signal('SIGSTOP')
      replicator.reprove(new Set(users))
      await delay(300)
      const beganMs = performance.now()
      await replicator.pause()
      process.stdout.write(
        `  pause of pulls that hang: ${Math.round(performance.now() - beganMs)} ms\n`,
      )
      const workers = await bed.replica.doveadm.call('processStatus', { service: 'doveadm' })
      assert.ok(Array.isArray(workers))
      const busy = workers.filter((worker) => worker.available_count === '0')
      assert.is(busy.length, 1, 'only the one that answers this')
      await bed.production.server.signal('SIGCONT')
      assert.is(replicator.status().complete, users.length)
      replicator.resume()
      for (const user of users) await identical(bed, user)
    })
  } finally {
    await bed.stop()
  }
})

test('a replica that went its own way is withdrawn, pulled anew and complete again', async () => {
  const bed = await makeBed(['anna'])
  try {
    await fill(bed, 'anna')
    await replicating(bed, ['anna'], async (replicator) => {
      await complete(replicator, 1)
      await replicator.pause()
      const replica = await openReplica(bed.replica.access, 'anna')
      await replica.append('INBOX', 'Subject: only here\r\n\r\nonly here\r\n')
      await replica.append('INBOX', 'Subject: nor this\r\n\r\nthere\r\n')
      // Two different messages with one UID: no pull notices, the comparison does.
      await replica.append('Sent', 'Subject: only here\r\n\r\nonly here\r\n')
      await replica.logout()
      await deliver(bed.production.lmtpPort, 'anna', 'Subject: only there\r\n\r\nonly there')
      await atProduction(bed, 'anna', async (client) => {
        await client.append('Sent', 'Subject: only there\r\n\r\nthis is only there\r\n')
      })
      await replicator.settle('anna')
      replicator.resume()
      replicator.reprove(new Set(['anna']))
      assert.is(replicator.status().complete, 1, 'the caller vouched for it')
      await until('the loss is noticed', () => seen(bed, 'replica.damaged'))
      await until('it is complete again', () => replicator.status().complete === 1)
      assert.equal(await compared(bed, 'anna'), [])
      assert.ok(seen(bed, 'folder.pulled-anew'))
      replicator.reprove()
      assert.is(replicator.status().complete, 0)
      await complete(replicator, 1)
    })
  } finally {
    await bed.stop()
  }
})

test('completeness outlives the replicator, and the next one goes on where it ended', async () => {
  const bed = await makeBed(['anna'])
  try {
    await fill(bed, 'anna')
    await replicating(bed, ['anna'], (replicator) => complete(replicator, 1))
    await deliver(bed.production.lmtpPort, 'anna', 'Subject: between\r\n\r\nbetween')
    await replicating(bed, ['anna'], async (replicator) => {
      assert.is(replicator.status().complete, 1)
      await identical(bed, 'anna')
    })
    await bed.replica.doveadm.call('mailboxDelete', { user: 'anna', mailbox: ['Sent'] })
    await replicating(bed, ['anna'], async (replicator) => {
      await until('the missing folder is noticed', () => seen(bed, 'replica.damaged'))
      await complete(replicator, 1)
      await identical(bed, 'anna')
    })
  } finally {
    await bed.stop()
  }
})

test('mail that a hint announces is in the replica at once', async () => {
  const bed = await makeBed(['anna'])
  try {
    await replicating(bed, ['anna'], async (replicator) => {
      await complete(replicator, 1)
      const client = await openReplica(bed.replica.access, 'anna')
      const lagsMs: number[] = []
      for (let n = 1; n <= 20; n += 1) {
        await deliver(bed.production.lmtpPort, 'anna', `Subject: ${n}\r\n\r\n${n}`)
        const beganMs = performance.now()
        replicator.hint('anna', 'INBOX')
        await until('the message is in the replica', async () => {
          const status = await client.status('INBOX', { messages: true })
          return status !== false && status.messages === n
        })
        lagsMs.push(Math.round(performance.now() - beganMs))
      }
      await client.logout()
      lagsMs.sort((a, b) => a - b)
      process.stdout.write(`  lag after delivery, ms: median ${lagsMs[10]}, p95 ${lagsMs[18]}\n`)
    })
  } finally {
    await bed.stop()
  }
})

test.run()
