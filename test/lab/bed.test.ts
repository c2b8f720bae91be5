// Goal: the bed is what it says: real servers, faults that do what they are called, and nothing left behind.
// Method: two beds side by side with a plain bridge in the appliance's place, asked from the users' namespace.
import { readdir, readFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { setTimeout as delay } from 'node:timers/promises'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { Bed } from './bed/bed.ts'
import type { Fault } from './bed/faults.ts'
import { namespacesWith } from './bed/network.ts'
import { PORTS, PRODUCTION } from './bed/plan.ts'
import { askWorker } from './bed/tools.ts'
import { compare, readDigest } from './digest.ts'
import { check } from './users/checker.ts'
import { Simulation } from './users/simulation.ts'

const PATIENCE_MS = 700
const UNTIL_MS = 20_000

const test = suite('bed')
const beds: Bed[] = []

test.before(async () => {
  const options = { appliance: 'plain-bridge', users: 3, messages: 25, noc: true } as const
  for (const bed of await Promise.all([Bed.up(options), Bed.up(options)])) beds.push(bed)
})

test.after(async () => {
  await Promise.all(beds.map((bed) => bed.down()))
})

function bed(index = 0): Bed {
  const found = beds[index]
  if (found === undefined) throw new Error('there is no such bed')
  return found
}

const heard = (port: number, host: string = PRODUCTION.ipv4, index = 0): Promise<unknown> =>
  askWorker(bed(index).namespace('users'), 'probe-worker.ts', {
    host,
    port,
    patienceMs: PATIENCE_MS,
  })

async function until(what: string, condition: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + UNTIL_MS
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`it never came to this: ${what}`)
    await delay(100)
  }
}

const answers = async (port: number, host?: string) =>
  /^(\* OK|220 |SSH-)/.test(String(await heard(port, host)))

test('the corpus is decided by its seed: two beds hold the same mail', async () => {
  const [one, other] = await Promise.all([
    readDigest(bed(0), 'production'),
    readDigest(bed(1), 'production'),
  ])
  const folders = Object.keys(one['anna']?.folders ?? {})
  assert.ok(folders.includes('Ärger & Fröhlich') && folders.includes('Projects/Alpha/Beta'))
  for (const [user, { folders }] of Object.entries(one))
    for (const [name, { messages }] of Object.entries(folders))
      assert.equal(other[user]?.folders[name]?.messages, messages, `${user}/${name}`)
  assert.is(compare(one, one).identical, true)
})

test('users at work are served with the right certificate, and nothing of theirs gets lost', async () => {
  const before = await readDigest(bed(), 'production')
  const users = await Simulation.start(bed(), { pauseMs: 50 })
  try {
    await until('60 operations', () =>
      Promise.resolve(users.records.filter(({ kind }) => kind === 'operation').length >= 60),
    )
    await users.stop()
  } finally {
    users.kill()
  }
  await until('Postfix has delivered', () => bed().queueIsEmpty())
  const verdict = check(users.records, before, await readDigest(bed(), 'production'))
  const { operations, certificates, failedConnects, reconnects, falseAuthFailures, ...flaws } =
    verdict
  assert.is(certificates.length, 1)
  assert.is(failedConnects + reconnects + falseAuthFailures, 0)
  assert.ok(operations.ok >= 60)
  for (const [what, offenders] of Object.entries(flaws)) assert.equal(offenders, [], what)
})

const symptoms: Readonly<Record<Fault, { imap: string; ssh: boolean }>> = {
  'link-down': { imap: 'timeout', ssh: false },
  kill: { imap: 'refused', ssh: true },
  stop: { imap: 'timeout', ssh: true },
  blackhole: { imap: 'timeout', ssh: false },
  restart: { imap: '* OK', ssh: true },
  flap: { imap: '* OK', ssh: true },
}

for (const [fault, { imap, ssh }] of Object.entries(symptoms)) {
  test(`after ${fault} users hear ${imap}, and after healing all is well`, async () => {
    await bed().fault(fault as Fault)
    await until(`IMAP: ${imap}`, async () => String(await heard(PORTS.imap)).startsWith(imap))
    assert.is(await answers(PORTS.ssh), ssh)
    assert.match(String(await heard(PORTS.imap, PRODUCTION.ipv4, 1)), /^\* OK/, 'the other bed')
    await bed().heal()
    for (const host of [PRODUCTION.ipv4, PRODUCTION.ipv6])
      for (const port of [PORTS.imap, PORTS.smtp, PORTS.ssh])
        await until(`${host}:${port}`, () => answers(port, host))
  })
}

test('the operations centre accepts its own certificate only', async () => {
  const { noc, ca } = bed().record
  if (noc === undefined) throw new Error('there is no broker')
  const publish = (authority: string) =>
    bed()
      .inside('appliance', 'mosquitto_pub', [
        ...['-L', `${noc.url}/lab`, '-m', 'hello', '--cafile', authority],
        ...['--cert', noc.certificate, '--key', noc.key],
      ])
      .then(
        () => 'accepted',
        () => 'refused',
      )
  assert.is(await publish(noc.ca), 'accepted')
  assert.is(await publish(ca), 'refused')
})

test('a bed that is taken down leaves nothing', async () => {
  const gone = beds.splice(0)
  const prefixes = gone.map(({ prefix }) => prefix)
  await Promise.all(gone.map((one) => one.down()))
  for (const prefix of prefixes) {
    assert.equal(await namespacesWith(prefix), [])
    const left = (await readdir(tmpdir())).filter((name) => name.includes(prefix.slice(0, -1)))
    assert.equal(left, [])
    assert.equal(await processesNaming(`/${prefix.slice(0, -1)}/`), [])
  }
})

async function processesNaming(text: string): Promise<string[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name))
  const lines = await Promise.all(
    pids.map((pid) => readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')),
  )
  return lines.filter((line) => line.includes(text))
}

test.run()
