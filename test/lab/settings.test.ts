// Goal: settings that cannot be right are refused in plain words, and what was in force stays in force.
// Method: a bed with a running appliance; one wrong thing at a time, then `reload`, `status`, and a look at the wire.
import { readFile, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { CommandFailed } from '../../firmware/command.ts'
import { stopAgent } from './bed/appliance.ts'
import { Bed } from './bed/bed.ts'
import { PORTS, PRODUCTION } from './bed/plan.ts'
import { here } from './bed/tools.ts'
import { agentOf, logOf, startAgent, statusOf, until, untilState } from './life.ts'
import { Visitor } from './visitor.ts'

const test = suite('settings')
let stage: { readonly bed: Bed; readonly visitor: Visitor; readonly good: string } | undefined

test.before(async () => {
  const bed = await Bed.up({ users: 1, messages: 5 })
  const good = await readFile(settingsFile(bed), 'utf8')
  stage = { bed, good, visitor: await Visitor.start(bed) }
  await untilState(bed, 'transparent-wait')
})

test.after(async () => {
  await stage?.visitor.leave()
  await stage?.bed.down()
})

function set() {
  if (stage === undefined) throw new Error('the stage is not set')
  return stage
}

const settingsFile = (bed: Bed): string => agentOf(bed).settings

/** Writes the good settings with one of them, named by its path, set to something else. */
async function write(setting: string, value: unknown): Promise<void> {
  const changed = withValue(JSON.parse(set().good), setting.split('.'), value)
  await writeFile(settingsFile(set().bed), JSON.stringify(changed))
}

function withValue(data: object, [name = '', ...below]: readonly string[], value: unknown): object {
  const copy = Array.isArray(data) ? [...data] : { ...data }
  const inner = below.length === 0 ? value : withValue(Reflect.get(data, name), below, value)
  return Object.assign(copy, { [name]: inner })
}

/** What `understudy reload` says; `accepted` when it does as told. */
async function reload(): Promise<string> {
  try {
    await set().bed.ask('reload')
    return 'accepted'
  } catch (error: unknown) {
    if (error instanceof CommandFailed) return error.stderr
    throw error
  }
}

async function wireBridges(): Promise<void> {
  const { visitor, bed } = set()
  const [account] = bed.record.accounts
  if (account === undefined) throw new Error('a bed has accounts')
  for (const host of [PRODUCTION.ipv4, PRODUCTION.ipv6]) {
    const door = { protocol: 'imap', host, port: PORTS.imap, tls: 'starttls' } as const
    const visited = await visitor.visit({ ...door, ...account })
    assert.is(visited.outcome, 'ok', `${host}: ${JSON.stringify(visited)}`)
    assert.match(await visitor.say(host, host, PORTS.ssh, 'hello'), 'production heard hello')
  }
}

async function problemsSaid(): Promise<readonly string[]> {
  const status = await statusOf(set().bed)
  return (status?.problems ?? []).map(({ what, where, todo }) => `${where}: ${what}. ${todo}`)
}

/** After every wrong thing the good settings come back, and the appliance is as before. */
async function allIsWellAgain(): Promise<void> {
  const { bed, good } = set()
  await writeFile(settingsFile(bed), good)
  assert.is(await reload(), 'accepted')
  await until('all is well again', async () => {
    const status = await statusOf(bed)
    return (
      status?.settings.accepted === true &&
      status.state === 'transparent-wait' &&
      status.production.reachable &&
      status.problems.length === 0 &&
      status.accounts.complete === 1
    )
  })
  await wireBridges()
}

const beside = (name: string): string => join(dirname(settingsFile(set().bed)), name)

/** A certificate of last year: only ca(1ssl) lets dates be chosen. */
async function expiredCertificate(): Promise<{ certificate: string; key: string }> {
  const at = (name: string) => beside(`expired.${name}`)
  const [certificate, key] = [at('pem'), at('key')]
  await writeFile(at('index'), '')
  await writeFile(
    at('cnf'),
    [
      ...[
        '[ca]',
        'default_ca=it',
        '[it]',
        `database=${at('index')}`,
        `new_certs_dir=${beside('')}`,
      ],
      ...['rand_serial=yes', 'default_md=sha256', 'policy=p', '[p]', 'commonName=supplied', ''],
    ].join('\n'),
  )
  const kind = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes']
  const subject = ['-subj', '/CN=mail.example.test', '-keyout', key, '-out', at('csr')]
  await here('openssl', ['req', '-new', ...kind, ...subject])
  const dates = ['-startdate', '20200101000000Z', '-enddate', '20210101000000Z']
  const files = ['-config', at('cnf'), '-in', at('csr'), '-keyfile', key, '-out', certificate]
  await here('openssl', ['ca', '-batch', '-selfsign', '-notext', ...dates, ...files])
  return { certificate, key }
}

type Wrong = {
  readonly what: string
  readonly make: () => Promise<void>
  /** Where, what, and what to do. */
  readonly said: readonly RegExp[]
}

const refused: readonly Wrong[] = [
  {
    what: 'an unknown key',
    make: () => write('production.hostnam', 'x'),
    said: [/production\.hostnam/, /is no setting/, /remove it or correct its spelling/],
  },
  {
    what: 'a wrong type',
    make: () => write('judgement.holdMs', 'soon'),
    said: [/judgement\.holdMs/, /must be a number, not/, /correct it/],
  },
  {
    what: 'something that is not JSON',
    make: () => writeFile(settingsFile(set().bed), '{ "production": '),
    said: [/settings\.json/, /are not JSON/, /correct the file/],
  },
  {
    what: 'a missing file',
    make: () => write('accounts.passwdFile', '/nowhere/passwd'),
    said: [/accounts\.passwdFile/, /is not there/, /Put the file there/],
  },
  {
    what: 'an expired certificate',
    make: async () => {
      const { certificate, key } = await expiredCertificate()
      const tls = { certificateFile: certificate, keyFile: key }
      await write('production.tls', tls)
    },
    said: [/production\.tls\.certificateFile/, /expired/, /Copy/],
  },
  {
    what: 'a key that does not match',
    make: async () => {
      const { key } = await expiredCertificate()
      await write('production.tls.keyFile', key)
    },
    said: [/production\.tls\.keyFile/, /does not belong/, /Copy/],
  },
]

for (const { what, make, said } of refused)
  test(`${what} is refused in plain words, and the last good settings stay in force`, async () => {
    const { bed } = set()
    await make()
    const answer = await reload()
    for (const words of said) assert.match(answer, words)
    const status = await statusOf(bed)
    assert.is(status?.settings.accepted, false)
    assert.is(status?.state, 'transparent-wait')
    const shown = await problemsSaid()
    assert.is(shown.length, 1, shown.join('\n'))
    const logged = (await logOf(bed)).filter(({ event }) => event === 'settings.doubted').at(-1)
    for (const words of said) {
      assert.match(shown.join(), words)
      assert.match(JSON.stringify(logged), words)
    }
    await wireBridges()
    await allIsWellAgain()
  })

test('with bad settings a restart goes on with the last good ones, and says so', async () => {
  const { bed } = set()
  await write('prodcution', {})
  await bed.restartAgent()
  const status = await statusOf(bed)
  assert.is(status?.settings.accepted, false)
  assert.is(status?.state, 'transparent-wait')
  assert.match((await problemsSaid()).join(), /prodcution: is no setting/)
  await wireBridges()
  await allIsWellAgain()
})

test('a production that cannot be reached is said, and the wire goes on bridging', async () => {
  await write('production.addresses.0.ipv4', '10.77.0.99')
  assert.is(await reload(), 'accepted')
  await until('the status says it', async () => /10\.77\.0\.99/.test((await problemsSaid()).join()))
  assert.is((await statusOf(set().bed))?.state, 'transparent-wait')
  await wireBridges()
  await allIsWellAgain()
})

test('a wrong administrative password is said, and the wire goes on bridging', async () => {
  const passwordFile = beside('admin.wrong')
  await writeFile(passwordFile, 'not the password\n', { mode: 0o600 })
  await write('production.admin.passwordFile', passwordFile)
  assert.is(await reload(), 'accepted')
  await until('the status says it', async () =>
    /production\.admin/.test((await problemsSaid()).join()),
  )
  assert.is((await statusOf(set().bed))?.state, 'transparent-wait')
  await wireBridges()
  await allIsWellAgain()
})

const fill = (directory: string) =>
  here('sh', ['-c', 'cat /dev/zero 2>&1 >>"$0/filler" || true', directory])

test('a full disk is said; nothing is lost, and with room again all goes on', async () => {
  const { bed } = set()
  const agent = agentOf(bed)
  const { state } = agent
  await stopAgent(agent)
  await here('cp', ['-a', state, `${state}.kept`])
  await here('mount', ['-t', 'tmpfs', '-o', 'size=160m,mode=755', 'tmpfs', state])
  try {
    await here('cp', ['-a', `${state}.kept/.`, state])
    await startAgent(bed)
    await untilState(bed, 'transparent-wait')
    await fill(state)
    await until('the status says it', async () =>
      /disk is full/.test((await problemsSaid()).join()),
    )
    // Whatever was freed meanwhile, a log that was cut short perhaps, is used up again.
    await fill(state)
    const answer = await bed.order('take-over').catch((error: unknown) => {
      if (error instanceof CommandFailed) return error.stderr
      throw error
    })
    assert.match(answer, /journal cannot be written: ENOSPC/)
    assert.ok((await logOf(bed)).some(({ event }) => event === 'journal.refused'))
    assert.is((await statusOf(bed))?.state, 'transparent-wait')
    await wireBridges()
    await here('rm', [`${state}/filler`])
    await allIsWellAgain()
  } finally {
    await stopAgent(agentOf(bed))
    await here('umount', ['-l', state])
  }
})

test.run()
