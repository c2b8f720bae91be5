// Goal: a program that is missing, slow, talkative or unhappy is an error with its name, and never a hang.
// Method: small real programs.
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { type Command, CommandFailed, inNamespace, run } from '../../firmware/command.ts'

const GENEROUS = { timeoutMs: 20_000 }

const failureOf = async (command: Command, options = GENEROUS): Promise<CommandFailed> => {
  const answer = await run(command, options).catch((error: unknown) => error)
  if (answer instanceof CommandFailed) return answer
  throw new Error(`did not fail as a command: ${String(answer)}`)
}

const test = suite('command')

test('the output of a program is the answer', async () => {
  assert.is(await run({ program: 'echo', args: ['a b', '$HOME'] }, GENEROUS), 'a b $HOME\n')
})

test('input reaches the program', async () => {
  assert.is(await run({ program: 'cat', args: [], input: 'Zoë\n' }, GENEROUS), 'Zoë\n')
})

test('a program that does not read its input is no error', async () => {
  const input = 'x'.repeat(1_000_000)
  assert.is(await run({ program: 'true', args: [], input }, GENEROUS), '')
})

test('messages are in English whatever the locale', async () => {
  process.env['LC_ALL'] = 'de_DE.UTF-8'
  assert.is(await run({ program: 'printenv', args: ['LC_ALL'] }, GENEROUS), 'C\n')
})

test('a program that says no fails with its exit code and its words', async () => {
  const args = ['-c', 'echo out; echo sorry >&2; exit 3']
  const failure = await failureOf({ program: 'sh', args })
  assert.is(failure.exitCode, 3)
  assert.is(failure.stderr, 'sorry\n')
  assert.match(failure.message, /^sh .*: sorry$/)
})

test('a program that is not there fails without an exit code', async () => {
  const failure = await failureOf({ program: 'no-such-program', args: [] })
  assert.is(failure.exitCode, undefined)
  assert.match(failure.message, /no-such-program/)
  assert.match(String(failure.cause), /ENOENT/)
})

test('a program that takes too long is ended, even when it ignores SIGTERM', async () => {
  const args = ['-c', 'trap "" TERM; while :; do sleep 0.05; done']
  const failure = await failureOf({ program: 'sh', args }, { timeoutMs: 200 })
  assert.is(failure.exitCode, undefined)
})

test('a program that never stops talking is ended', async () => {
  const failure = await failureOf({ program: 'yes', args: [] })
  assert.is(failure.exitCode, undefined)
  assert.match(String(failure.cause), /maxBuffer/)
})

test('a command in a namespace enters its network only', () => {
  assert.equal(inNamespace('svc', { program: 'ip', args: ['-j', 'link'], input: 'x' }), {
    program: 'nsenter',
    args: ['--net=/run/netns/svc', 'ip', '-j', 'link'],
    input: 'x',
  })
})

test.run()
