// Goal: after any failover production holds exactly what users saw on the appliance, once, under the same UIDs.
// Method: two real Dovecots on loopback, one scenario a rule; the push is cut off at every command, and killed for real.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import type { ImapFlow } from 'imapflow'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { Stranger } from '../../agent/replica/mail/backsync-sides.ts'
import { PeerUnreachable } from '../../agent/replica/mail/imap.ts'
import { run } from '../../firmware/command.ts'
import { BackSyncBed, cutOff, idsOf, mail } from './backsync-bed.ts'
import type { Job } from './backsync-worker.ts'
import { compareDigests } from './imap-digest.ts'

/** Every so many commands; 1 takes minutes. */
const STRIDE = Number(process.env['STRIDE'] ?? 11)
const CUT_USERS = Array.from({ length: Math.ceil(250 / STRIDE) }, (_, n) => `cut${n}`)
const KILLED_USERS = Array.from({ length: 8 }, (_, n) => `kill${n}`)
const WORKER = fileURLToPath(new URL('backsync-worker.ts', import.meta.url))
const RULES = ['ada', 'bob', 'cyd', 'dee', 'eve', 'fay', 'gus', 'hal', 'ida', 'kim']

const test = suite<{ bed: BackSyncBed }>('back-sync between real servers')

test.before(async (context) => {
  context.bed = await BackSyncBed.make([...RULES, ...CUT_USERS, ...KILLED_USERS])
})
test.after(({ bed }) => bed.close())

/** What production held before it failed: UIDs with gaps, flags, folders; all of it replicated, and the gap made. */
async function stood(bed: BackSyncBed, user: string, messages = 8): Promise<void> {
  await bed.there(user, async (client) => {
    for (const folder of ['Archive', 'Archive/2024', 'Ärger & 日本'])
      await client.mailboxCreate(folder)
    for (let n = 1; n <= messages; n += 1)
      await client.append('INBOX', mail(`old${n}`), n % 2 ? ['\\Seen', '$Later'] : [], at(n))
    await client.append('Archive', mail('kept'), ['\\Seen'], at(50))
    await client.mailboxOpen('INBOX')
    await client.messageDelete('2', { uid: true })
  })
  await bed.replicate(user)
  await bed.backSync.makeGap(user)
}

/** What users do on the appliance: arrivals, a hole, flags, deletions, a move, folders, subscriptions. */
async function work(client: ImapFlow): Promise<void> {
  for (let n = 1; n <= 3; n += 1)
    await client.append('INBOX', mail(`new${n}`), ['$Later'], at(100 + n))
  await client.append('Archive', mail('sent'), ['\\Seen'], at(110))
  await client.mailboxCreate('Neu/日本')
  await client.append('Neu/日本', mail('first'), [], at(111))
  await client.mailboxRename('Archive/2024', 'Archive/2025')
  await client.mailboxUnsubscribe('Archive')
  await client.mailboxOpen('INBOX')
  await client.messageFlagsAdd('1,4', ['\\Answered'], { uid: true })
  await client.messageFlagsRemove('3', ['\\Seen'], { uid: true })
  await client.messageDelete('5', { uid: true })
  await client.messageMove('6', 'Archive', { uid: true })
  await client.messageDelete('*')
  await client.append('INBOX', mail('new4'), [], at(104))
}

/** What production does by itself meanwhile: mail from its own queue, and a clean-up job. */
async function stir(client: ImapFlow): Promise<void> {
  await client.append('INBOX', mail('orphan1'), ['\\Flagged'], at(120))
  await client.append('INBOX', mail('orphan2'), [], at(121))
  await client.mailboxOpen('INBOX')
  await client.messageFlagsAdd('1', ['\\Flagged'], { uid: true })
  await client.messageDelete('7', { uid: true })
}

const at = (hours: number): Date => new Date(1_700_000_000_000 + hours * 3_600_000)

/** Dovecot takes the time for the UIDVALIDITY of a new folder, and later times for those made within a second. */
async function pastValidities(bed: BackSyncBed, user: string): Promise<void> {
  const last = Math.max(...bed.ledger.folders(user).map(({ uidValidity }) => uidValidity))
  while (Date.now() / 1_000 <= last + 1) await delay(50)
}

/** Hands over and asserts that both sides are the same then, and that each message is there once. */
async function handOver(bed: BackSyncBed, user: string): Promise<Map<number, string>> {
  await bed.backSync.push(user, { final: true })
  assert.equal(await bed.backSync.verify(user), [])
  const again = await bed.backSync.push(user, { final: true })
  assert.is(again.items + again.pads, 0, 'a second push has nothing to do')
  assert.is(await bed.backSync.unbound(user), 0)
  await bed.backSync.pull(user)
  const { here, there } = await bed.digests(user)
  assert.equal(compareDigests(here, there), [])
  const ids = await bed.there(user, (client) => idsOf(client, 'INBOX'))
  assert.is(new Set(ids.values()).size, ids.size, `doubled: ${[...ids.values()]}`)
  assert.not([...ids.values()].includes(''), 'padding is left')
  return ids
}

/** INBOX of production after `stood`, `work` and `stir` were given back: three messages have new UIDs at the tail. */
function checkWorked(ids: ReadonlyMap<number, string>): void {
  const names = [...ids.values()]
  assert.equal(names.toSorted(), [
    'new1',
    'new2',
    'new4',
    'old1',
    'old3',
    'old4',
    'old8',
    'orphan1',
    'orphan2',
  ])
  assert.equal(names.slice(-2), ['orphan1', 'orphan2'], 'what production got lies at the tail')
}

test('what users did is at production, and what production did by itself is on the appliance', async ({
  bed,
}) => {
  await stood(bed, 'ada')
  await bed.here('ada', work)
  await bed.there('ada', stir)
  const before = await bed.here('ada', (client) => idsOf(client, 'INBOX'))
  assert.ok((await bed.backSync.unbound('ada')) > 8)
  assert.equal(await bed.backSync.dirty(['ada']), ['ada'])
  await bed.backSync.push('ada')
  assert.equal(await bed.backSync.dirty(['ada']), [])
  const after = await handOver(bed, 'ada')
  checkWorked(after)
  for (const [uid, id] of before) if (id !== 'old7') assert.is(after.get(uid), id)
  const { there } = await bed.digests('ada')
  assert.is(
    there.folders.get('INBOX')?.messages.get(1)?.flags,
    '$Later \\Answered \\Flagged \\Seen',
  )
  assert.equal(
    [...there.folders.keys()].filter((path) => /20|Neu/.test(path)),
    ['Archive/2025', 'Neu/日本'],
  )
  assert.not(there.subscriptions.includes('Archive'))
})

test('a UID that production has used otherwise is left to it, the appliance files its message anew', async ({
  bed,
}) => {
  await stood(bed, 'bob')
  await bed.here('bob', (client) => client.append('INBOX', mail('mine'), ['\\Seen'], at(100)))
  await bed.there('bob', async (client) => {
    for (let n = 0; n < 70; n += 1) await client.append('INBOX', mail(`own${n}`), [], at(200))
  })
  const [mine = 0] = await bed
    .here('bob', (client) => idsOf(client, 'INBOX'))
    .then((ids) => [...ids].find(([, id]) => id === 'mine') ?? [])
  const result = await bed.backSync.push('bob')
  assert.is(result.conflicts, 1)
  const ids = await handOver(bed, 'bob')
  assert.not(ids.has(mine), 'the UID in dispute means nothing any more')
  assert.is([...ids.values()].filter((id) => id === 'mine').length, 1)
  assert.is([...ids.values()].filter((id) => id.startsWith('own')).length, 70)
})

test('a letter that came in on both sides is there once, under the UID that users saw', async ({
  bed,
}) => {
  await stood(bed, 'cyd')
  await bed.here('cyd', (client) => client.append('INBOX', mail('both'), ['\\Seen'], at(100)))
  await bed.there('cyd', (client) =>
    client.append('INBOX', `Received: by another way\r\n${mail('both')}`, [], at(101)),
  )
  const seen = await bed.here('cyd', (client) => idsOf(client, 'INBOX'))
  const result = await bed.backSync.push('cyd')
  assert.is(result.twins, 1)
  assert.equal([...(await handOver(bed, 'cyd'))], [...seen])
})

test('a production that lost its last messages gets them again under their UIDs', async ({
  bed,
}) => {
  await stood(bed, 'dee')
  await bed.production.server.stop()
  const home = join(bed.production.directory, 'mail', 'dee')
  await run({ program: 'cp', args: ['-a', home, `${home}.backup`] }, { timeoutMs: 10_000 })
  await bed.production.server.start()
  await bed.there('dee', async (client) => {
    await client.append('INBOX', mail('late1'), ['\\Seen'], at(60))
    await client.append('INBOX', mail('late2'), [], at(61))
  })
  bed.ledger.record('dee', { gap: 'none' })
  await bed.replicate('dee')
  await bed.backSync.makeGap('dee')
  const seen = await bed.here('dee', (client) => idsOf(client, 'INBOX'))
  await bed.production.server.stop()
  await run({ program: 'rm', args: ['-r', home] }, { timeoutMs: 10_000 })
  await run({ program: 'mv', args: [`${home}.backup`, home] }, { timeoutMs: 10_000 })
  await bed.production.server.start()
  // Production gives the UID of late1 out again.
  await bed.there('dee', (client) => client.append('INBOX', mail('reused'), [], at(70)))
  const ids = await handOver(bed, 'dee')
  assert.equal([...ids.values()].toSorted(), [...seen.values(), 'reused'].toSorted())
  const late2 = [...seen].find(([, id]) => id === 'late2')?.[0] ?? 0
  assert.is(ids.get(late2), 'late2')
})

test('a stranger is given nothing, unless a person says so: then it is filled as a whole', async ({
  bed,
}) => {
  await stood(bed, 'eve', 25)
  await bed.here('eve', work)
  const seen = await bed.here('eve', (client) => idsOf(client, 'INBOX'))
  await bed.production.server.stop()
  const home = join(bed.production.directory, 'mail', 'eve')
  await run({ program: 'rm', args: ['-r', home] }, { timeoutMs: 10_000 })
  await bed.production.server.start()
  await assertRejects(() => bed.backSync.push('eve'), Stranger)
  assert.is((await bed.there('eve', (client) => idsOf(client, 'INBOX'))).size, 0)
  await bed.backSync.push('eve', { acceptStranger: true })
  assert.equal([...(await handOver(bed, 'eve'))], [...seen])
})

test('a folder that users deleted goes, but not what production put into it', async ({ bed }) => {
  await stood(bed, 'fay')
  await bed.here('fay', async (client) => {
    await client.mailboxDelete('Archive/2024')
    await client.mailboxDelete('Archive')
  })
  await bed.there('fay', (client) => client.append('Archive', mail('own'), [], at(100)))
  await bed.backSync.push('fay', { final: true })
  const folders = await bed.there('fay', (client) => client.list())
  const paths = folders.map(({ path }) => path)
  assert.ok(paths.includes('Archive') && !paths.includes('Archive/2024'))
  const ids = await bed.there('fay', (client) => idsOf(client, 'Archive'))
  assert.equal([...ids.values()], ['own'])
  await handOver(bed, 'fay')
})

test('a folder made anew under its old name is another folder at production too', async ({
  bed,
}) => {
  await stood(bed, 'gus')
  await pastValidities(bed, 'gus')
  await bed.here('gus', async (client) => {
    await client.mailboxRename('Archive/2024', 'Elsewhere')
    await client.mailboxDelete('Archive')
    await client.mailboxCreate('Archive')
    await client.append('Archive', mail('anew'), [], at(100))
  })
  await handOver(bed, 'gus')
  const ids = await bed.there('gus', (client) => idsOf(client, 'Archive'))
  assert.equal([...ids.values()], ['anew'])
})

test('a folder that production deleted stays deleted, unless something came into it', async ({
  bed,
}) => {
  await stood(bed, 'hal')
  await bed.there('hal', async (client) => {
    await client.mailboxDelete('Archive/2024')
    await client.mailboxDelete('Archive')
  })
  await bed.here('hal', (client) => client.append('Archive', mail('new'), [], at(100)))
  await handOver(bed, 'hal')
  const folders = await bed.there('hal', (client) => client.list())
  assert.not(folders.some(({ path }) => path === 'Archive/2024'))
  const ids = await bed.there('hal', (client) => idsOf(client, 'Archive'))
  assert.equal([...ids.values()].toSorted(), ['kept', 'new'])
})

test('clients whose session is open see a folder of theirs go over', async ({ bed }) => {
  await stood(bed, 'ida')
  await bed.here('ida', async (client) => {
    await client.mailboxCreate('Mine')
    await client.append('Mine', mail('a'), [], at(100))
    await client.mailboxOpen('Mine')
    await bed.backSync.push('ida')
    await client.noop().catch(() => undefined)
  })
  await handOver(bed, 'ida')
  const ids = await bed.there('ida', (client) => idsOf(client, 'Mine'))
  assert.equal([...ids.values()], ['a'])
})

test('cut off at any command to production, it goes on where it was', async ({ bed }) => {
  const reached: number[] = []
  for (const [n, user] of CUT_USERS.entries()) {
    await stood(bed, user)
    await bed.here(user, work)
    await bed.there(user, stir)
    const cut = cutOff(bed, 1 + n * STRIDE)
    const push = cut.backSync.push(user, { final: n % 2 === 1 })
    const outcome = await push.catch((error: unknown) => error)
    await cut.backSync.close()
    const isOver = !(outcome instanceof PeerUnreachable)
    if (isOver && outcome instanceof Error) throw outcome
    checkWorked(await handOver(bed, user))
    if (isOver && reached.push(n) === 2) break
  }
  assert.is(reached.length, 2, 'there are more commands than cuts')
})

test('killed at any moment, a new process goes on where it was', async ({ bed }) => {
  let killed = 0
  for (const [n, user] of KILLED_USERS.entries()) {
    await stood(bed, user)
    await bed.here(user, work)
    await bed.there(user, stir)
    const job: Job = {
      settings: bed.settings,
      access: bed.replica.access,
      doveadm: { key: bed.replica.access.key, port: await bed.doveadmPort() },
      ledger: bed.replica.paths.ledger,
      user,
      killAfter: 1 + n * 17,
    }
    const worker = spawn(process.execPath, [...process.execArgv, WORKER, JSON.stringify(job)], {
      stdio: ['ignore', 'ignore', 'inherit'],
    })
    const [code, signal] = await once(worker, 'exit')
    assert.ok(signal === 'SIGKILL' || code === 0, `ended with ${code} ${signal}`)
    if (signal === 'SIGKILL') killed += 1
    checkWorked(await handOver(bed, user))
  }
  assert.ok(killed > KILLED_USERS.length / 2, `killed ${killed} times`)
})

test('mbsync, taken from production to the appliance and back, downloads nothing again', async ({
  bed,
}) => {
  await stood(bed, 'kim')
  const maildir = join(bed.directory, 'mbsync')
  await mkdir(maildir)
  const sync = async (port: number, login: string, password: string) => {
    const conf = join(bed.directory, 'mbsyncrc')
    await writeFile(conf, mbsyncConf({ maildir, port, login, password }))
    return run({ program: 'mbsync', args: ['-c', conf, '-a'] }, { timeoutMs: 60_000 })
  }
  const atProduction = () => sync(bed.production.imapPort, 'kim', 'kim-secret')
  await atProduction()
  await bed.here('kim', async (client) => {
    await client.append('INBOX', mail('new1'), ['\\Seen'], at(100))
    await client.append('INBOX', mail('new2'), [], at(101))
    await client.mailboxOpen('INBOX')
    await client.messageFlagsAdd('1,4', ['\\Answered'], { uid: true })
    await client.messageMove('6', 'Archive', { uid: true })
    await client.messageDelete('3', { uid: true })
  })
  await sync(bed.replica.access.port, 'kim*understudy', bed.replica.access.key)
  const names = await messagesUnder(maildir)
  await handOver(bed, 'kim')
  const said = await atProduction()
  assert.not.match(said, /UIDVALIDITY/)
  assert.equal(await messagesUnder(maildir), names)
})

/** Files of a Maildir, without the flags in their names. */
async function messagesUnder(maildir: string): Promise<string[]> {
  const files = await readdir(maildir, { recursive: true })
  return files
    .filter((file) => /\/(cur|new)\/./.test(`/${file}`))
    .map((file) => file.replace(/:2,.*$/, '').replace('/new/', '/cur/'))
    .toSorted()
}

const mbsyncConf = (with_: { maildir: string; port: number; login: string; password: string }) => `
IMAPAccount server
Host 127.0.0.1
Port ${with_.port}
User "${with_.login}"
Pass "${with_.password}"
SSLType None
AuthMechs LOGIN

IMAPStore far
Account server

MaildirStore near
Path ${with_.maildir}/
Inbox ${with_.maildir}/INBOX
SubFolders Verbatim

Channel all
Far :far:
Near :near:
Patterns *
Create Near
Expunge Near
SyncState *
`

async function assertRejects(
  work_: () => Promise<unknown>,
  kind: new (because: string) => Error,
): Promise<void> {
  const outcome = await work_().catch((error: unknown) => error)
  assert.instance(outcome, kind)
}

test.run()
