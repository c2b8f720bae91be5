// Goal: the command says in one line what is wrong, where and what to do, and its exit code says which kind it is.
// Method: commands as people type them, against an agent made of answers.
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { AgentUnreachable } from '../../agent/console/ask.ts'
import { execute, type Surroundings } from '../../agent/console/command-line.ts'
import type { Answer } from '../../agent/console/protocol.ts'
import { quietStatus } from '../fakes/status.ts'

const around = (answer: Answer, asked: unknown[] = []): Surroundings => ({
  settingsPath: '/data/understudy/settings.json',
  ask: (verb, args) => {
    asked.push([verb, args])
    return Promise.resolve(answer)
  },
  check: (path) =>
    Promise.resolve(
      path.includes('bad')
        ? { usable: false, lines: [`${path}: wire: is missing; add it`] }
        : { usable: true, lines: ['warning: noc.url: x. y.'] },
    ),
})

const accepted: Answer = { accepted: true }
const withStatus: Answer = { accepted: true, status: quietStatus }
const test = suite('command line')

test('status is words; with --json it is the status itself', async () => {
  const words = await execute(['status'], around(withStatus))
  assert.is(words.exitCode, 0)
  assert.match(String(words.out[0]), /^Production is answering; 20 of 20/)
  const json = await execute(['status', '--json'], around(withStatus))
  assert.equal(JSON.parse(json.out.join('\n')), quietStatus)
})

test('arguments reach the verb by their names', async () => {
  const asked: unknown[] = []
  const outcome = await execute(
    ['take-over', '--confirm', '--reason', 'fire drill'],
    around(accepted, asked),
  )
  assert.equal(outcome, { exitCode: 0, out: ['take-over: accepted.'], errors: [] })
  await execute(['resync', '--user=zoe'], around(accepted, asked))
  assert.equal(asked, [
    ['take-over', { confirm: true, reason: 'fire drill' }],
    ['resync', { user: 'zoe' }],
  ])
})

test('an order that is refused says why, and exits 1', async () => {
  const outcome = await execute(['give-back'], around({ accepted: false, because: 'no need' }))
  assert.equal(outcome, {
    exitCode: 1,
    out: [],
    errors: ['understudy: give-back refused: no need'],
  })
})

test('no running agent is one line: what, where, what to do', async () => {
  const { exitCode, errors } = await execute(['status'], {
    ...around(accepted),
    ask: () => Promise.reject(new AgentUnreachable('/data/run/control: connect ENOENT')),
  })
  assert.is(exitCode, 1)
  assert.equal(errors, [
    'understudy: no agent answers (/data/run/control: connect ENOENT); start it, or give its state directory in UNDERSTUDY_STATE',
  ])
})

test('an unknown command exits 2 with the list of those that there are', async () => {
  const { exitCode, errors } = await execute(['explode'], around(accepted))
  assert.is(exitCode, 2)
  const text = errors.join('\n')
  for (const name of ['status', 'take-over', 'give-back', 'reload', 'resync', 'check-settings'])
    assert.ok(text.includes(`  ${name}`), name)
})

for (const argv of [
  ['status', '--jsn'],
  ['take-over', 'now'],
  ['resync', '--user'],
])
  test(`"${argv.join(' ')}" exits 2 with the usage of that command`, async () => {
    const asked: unknown[] = []
    const { exitCode, errors } = await execute(argv, around(accepted, asked))
    assert.is(exitCode, 2)
    assert.match(errors.at(-1) ?? '', new RegExp(`^ {2}${argv[0]} `))
    assert.equal(asked, [])
  })

for (const argv of [[], ['--help'], ['help']])
  test(`"understudy ${argv.join(' ')}" is the list of commands`, async () => {
    const { exitCode, out } = await execute(argv, around(accepted))
    assert.is(exitCode, 0)
    assert.ok(out.some((line) => line.includes('UNDERSTUDY_STATE')))
  })

test('check-settings takes the file of the environment, or another', async () => {
  const usable = await execute(['check-settings'], around(accepted))
  assert.equal(usable, {
    exitCode: 0,
    out: ['warning: noc.url: x. y.', '/data/understudy/settings.json: these settings can be used.'],
    errors: [],
  })
  const refused = await execute(['check-settings', '/tmp/bad.json'], around(accepted))
  assert.equal(refused, {
    exitCode: 1,
    out: [],
    errors: ['/tmp/bad.json: wire: is missing; add it'],
  })
  assert.is((await execute(['check-settings', 'a', 'b'], around(accepted))).exitCode, 2)
})

test.run()
