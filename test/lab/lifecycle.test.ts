// Goal: one whole life cycle, and a shorter one for each way production can fail: users keep address and mail.
// Method: a bed with real servers, asked from the users' network by clients of the lab's own and by mbsync(1).
import { X509Certificate } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { Account } from './bed/accounts.ts'
import { Bed } from './bed/bed.ts'
import type { Fault } from './bed/faults.ts'
import { PORTS, PRODUCTION } from './bed/plan.ts'
import { inBed } from './bed/record.ts'
import { readDigest } from './digest.ts'
import {
  differencesBetweenSides,
  logOf,
  statesIn,
  statusOf,
  until,
  untilSidesAgree,
  untilState,
} from './life.ts'
import { Mbsync } from './mbsync.ts'
import { Neighbourhood } from './neighbourhood.ts'
import { check } from './users/checker.ts'
import { Simulation } from './users/simulation.ts'
import { type Visit, Visitor } from './visitor.ts'

type Stage = {
  readonly bed: Bed
  readonly anna: Account
  readonly ben: Account
  readonly visitor: Visitor
  readonly neighbourhood: Neighbourhood
  readonly mbsync: Mbsync
  /** SHA-256 of production's certificate. */
  readonly certificate: string
}

const test = suite('life cycle')
let stage: Stage | undefined

test.before(async () => {
  const bed = await Bed.up({ users: 2, messages: 15, holdMs: 1_500, lingerMs: 1_500 })
  const [anna, ben] = bed.record.accounts
  if (anna === undefined || ben === undefined) throw new Error('a bed has accounts')
  const pem = await readFile(inBed(bed.record, 'certificates', 'production.pem'))
  stage = {
    ...{ bed, anna, ben, certificate: new X509Certificate(pem).fingerprint256 },
    visitor: await Visitor.start(bed),
    neighbourhood: await Neighbourhood.watch(bed),
    mbsync: await Mbsync.of(bed, anna),
  }
})

test.after(async () => {
  await stage?.visitor.leave()
  await stage?.bed.down()
})

function set(): Stage {
  if (stage === undefined) throw new Error('the stage is not set')
  return stage
}

const HOSTS = [PRODUCTION.ipv4, PRODUCTION.ipv6]
const DOORS = [
  { protocol: 'imap', port: PORTS.imap, tls: 'starttls' },
  { protocol: 'imap', port: PORTS.imaps, tls: 'implicit' },
  { protocol: 'pop3', port: PORTS.pop3, tls: 'starttls' },
  { protocol: 'pop3', port: PORTS.pop3s, tls: 'implicit' },
  { protocol: 'submission', port: PORTS.submission, tls: 'starttls' },
  { protocol: 'submission', port: PORTS.submissions, tls: 'implicit' },
  { protocol: 'smtp', port: PORTS.smtp, tls: 'starttls' },
] as const

let letters = 0
const newId = (): string => {
  letters += 1
  return `<life-${process.pid}-${letters}@lab.test>`
}

const imap = { protocol: 'imap', host: PRODUCTION.ipv4, port: PORTS.imap, tls: 'starttls' } as const

/** Every door by both address families, with right passwords and wrong ones. */
async function allDoorsAnswer(): Promise<void> {
  const { visitor, anna, ben, certificate } = set()
  const visits = [anna, ben].flatMap(({ user, password }) =>
    HOSTS.flatMap((host) => DOORS.map((door) => ({ ...door, host, user, password }))),
  )
  for (const visit of visits) {
    const name = `${visit.user}, ${visit.protocol} ${visit.tls} on ${visit.host}:${visit.port}`
    const visited = await visitor.visit(visit)
    assert.is(visited.outcome, 'ok', `${name}: ${JSON.stringify(visited)}`)
    if (visited.outcome === 'ok') assert.is(visited.certificate, certificate, name)
  }
  const wrong = DOORS.filter(({ protocol }) => protocol !== 'smtp').map((door) => ({
    ...door,
    ...{ host: PRODUCTION.ipv4, user: anna.user, password: `${anna.password}!` },
  }))
  const answers = await Promise.all(wrong.map((visit) => visitor.visit(visit)))
  for (const [index, { outcome }] of answers.entries())
    assert.is(outcome, 'wrong-password', `${wrong[index]?.protocol}:${wrong[index]?.port}`)
}

/** Leaves a message by a door and waits until its receiver has it, once. */
async function messageArrives(door: Pick<Visit, 'protocol' | 'port' | 'tls'>): Promise<string> {
  const { visitor, anna, ben } = set()
  const id = newId()
  const sender = door.protocol === 'imap' ? anna : ben
  const leave = { id, to: anna.user }
  const visited = await visitor.visit({ ...door, host: PRODUCTION.ipv6, ...sender, leave })
  assert.is(visited.outcome, 'ok', JSON.stringify(visited))
  await until(`${door.protocol}: the message is there once`, () => isThereOnce(id))
  return id
}

async function isThereOnce(id: string): Promise<boolean> {
  const { visitor, anna } = set()
  const visited = await visitor.visit({ ...imap, ...anna, find: id })
  return visited.outcome === 'ok' && visited.found === 1
}

async function sshAnswers(): Promise<void> {
  const { visitor } = set()
  for (const [name, host] of [
    ...HOSTS.map((host) => [`kept open, ${host}`, host] as const),
    ...HOSTS.map((host) => [newId(), host] as const),
  ]) {
    const heard = await visitor.say(name, host, PORTS.ssh, name)
    assert.is(heard, `production heard ${name}`, host)
  }
}

/** Production's machine asks the wire whether somebody else has its addresses, as it does when it boots. */
async function productionFindsNoConflict(): Promise<void> {
  const { bed } = set()
  const inProduction = (program: string, ...args: string[]) =>
    bed.inside('production', program, args)
  await inProduction('arping', '-D', '-q', '-I', 'eth0', '-c', '2', '-w', '2', PRODUCTION.ipv4)
  const address = [`${PRODUCTION.ipv6}/64`, 'dev', 'eth0']
  await inProduction('sysctl', '-qw', 'net.ipv6.conf.eth0.accept_dad=1')
  await inProduction('ip', 'addr', 'del', ...address)
  await inProduction('ip', 'addr', 'add', ...address)
  const shown = () => inProduction('ip', '-6', 'addr', 'show', 'dev', 'eth0', 'to', PRODUCTION.ipv6)
  await until('DAD ends', async () => !/tentative(?! dadfailed)/.test(await shown()))
  assert.not.match(await shown(), 'dadfailed')
  await inProduction('sysctl', '-qw', 'net.ipv6.conf.eth0.accept_dad=0')
}

const everybodysCaches = { [PRODUCTION.ipv4]: PRODUCTION.mac, [PRODUCTION.ipv6]: PRODUCTION.mac }

test('the replica becomes equal to production, and users notice nothing of it', async () => {
  const { bed, mbsync, neighbourhood } = set()
  await untilState(bed, 'transparent-wait')
  assert.equal(await differencesBetweenSides(bed), [])
  await allDoorsAnswer()
  await sshAnswers()
  assert.is(await mbsync.pull(), 15)
  assert.equal(await neighbourhood.caches(), everybodysCaches)
})

const left: string[] = []

test('when production is killed, every door answers at the same address with the same passwords', async () => {
  const { bed, neighbourhood } = set()
  await bed.fault('kill')
  await untilState(bed, 'failover')
  await allDoorsAnswer()
  assert.equal(await neighbourhood.caches(), everybodysCaches)
})

test('while the appliance stands in, mail is left and arrives, and other ports are production’s', async () => {
  const { mbsync } = set()
  for (const door of DOORS.filter(({ protocol }) => protocol !== 'pop3'))
    left.push(await messageArrives(door))
  await sshAnswers()
  assert.is(await mbsync.pull(), left.length)
})

test('production comes back without a conflict and gets everything', async () => {
  const { bed, neighbourhood, mbsync } = set()
  await bed.heal()
  await productionFindsNoConflict()
  await untilState(bed, 'transparent-wait')
  await untilSidesAgree(bed)
  for (const id of left) assert.ok(await isThereOnce(id), id)
  await allDoorsAnswer()
  await sshAnswers()
  assert.is(await mbsync.pull(), 0)
  assert.equal(await neighbourhood.caches(), everybodysCaches)
})

for (const fault of ['link-down', 'stop', 'blackhole'] satisfies readonly Fault[])
  test(`after ${fault} users are served too, and production gets everything back`, async () => {
    const { bed, mbsync } = set()
    await bed.fault(fault)
    await untilState(bed, 'failover')
    const id = await messageArrives(DOORS[5])
    await bed.heal()
    await untilState(bed, 'transparent-wait')
    await untilSidesAgree(bed)
    assert.ok(await isThereOnce(id))
    assert.is(await mbsync.pull(), 1)
  })

test('a restart of Dovecot and a short flap of the link are no failure, and nobody is refused', async () => {
  const { bed } = set()
  const before = await readDigest(bed, 'production')
  const entered = statesIn(await logOf(bed))
  const users = await Simulation.start(bed, {
    pauseMs: 200,
    asker: { everyMs: 50, login: true },
  })
  const asked = () => users.records.filter(({ kind }) => kind === 'asked').length
  try {
    for (const fault of ['restart', 'flap'] satisfies readonly Fault[]) {
      const sofar = asked()
      await until('questions are answered', () => Promise.resolve(asked() > sofar + 20))
      await bed.fault(fault)
      await until('questions are answered again', () => Promise.resolve(asked() > sofar + 60))
    }
    await users.stop()
  } finally {
    users.kill()
  }
  await until('nothing is suspected', async () => {
    const status = await statusOf(bed)
    return status?.services.every(({ verdict }) => verdict === 'healthy') ?? false
  })
  assert.equal(statesIn(await logOf(bed)), entered)
  await until('Postfix has delivered', () => bed.queueIsEmpty())
  await untilSidesAgree(bed)
  const verdict = check(users.records, before, await readDigest(bed, 'production'))
  const { operations, certificates, reconnects, ...flaws } = verdict
  assert.equal(
    users.records.filter((record) => 'outcome' in record && record.outcome === 'not-connected'),
    [],
  )
  assert.is(certificates.length, 1)
  assert.ok(operations.ok > 0)
  assert.is(flaws.failedConnects + flaws.falseAuthFailures, 0)
  for (const [what, found] of Object.entries(flaws))
    if (Array.isArray(found)) assert.equal(found, [], `${what}, ${reconnects} reconnects`)
})

test('a take-over by order while production lives is given back by order', async () => {
  const { bed, mbsync } = set()
  await mbsync.pull()
  await bed.order('take-over')
  await untilState(bed, 'failover')
  const id = await messageArrives({ protocol: 'imap', port: PORTS.imaps, tls: 'implicit' })
  await sshAnswers()
  await productionFindsNoConflict()
  // With production alive the hold time may already have begun to give back.
  await bed.order('give-back').catch(() => undefined)
  await untilState(bed, 'transparent-wait')
  await untilSidesAgree(bed)
  assert.ok(await isThereOnce(id))
  assert.is(await mbsync.pull(), 1)
  assert.is(await mbsync.pull(), 0)
})

test('in all this time production’s addresses had one link-layer address', async () => {
  const { addresses, frames } = await set().neighbourhood.ended()
  assert.ok(frames > 100)
  assert.equal(addresses, [PRODUCTION.mac])
  assert.equal(await set().neighbourhood.caches(), everybodysCaches)
})

test.run()
