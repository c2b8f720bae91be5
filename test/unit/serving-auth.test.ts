// Goal: Dovecot's questions get the answers that make users see the truth: accepted, wrong, or not at present.
// Method: the words of both protocols as text; the oracle itself over its socket, as Dovecot speaks to it.
import { mkdtemp, rm } from 'node:fs/promises'
import { createConnection } from 'node:net'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { type Admission, PasswordOracle } from '../../agent/serving/auth.ts'
import { escaped, reply, requestFrom, unescaped } from '../../agent/serving/dict.ts'
import { saslRequest, verdictFrom, verifyLogin } from '../../agent/serving/sasl.ts'

const test = suite('serving auth')

test('whatever would break a line is escaped, and comes back', () => {
  const nasty = 'a\tb\nc\rd\0e\u0001f\u00011'
  assert.not.match(escaped(nasty), /[\t\n\r\0]/)
  assert.is(unescaped(escaped(nasty)), nasty)
  assert.is(reply.found('{"a":"\t"}'), 'O{"a":"\u0001t"}\n')
})

test('the lines of the dict protocol are told apart', () => {
  assert.equal(requestFrom('H3\t2\t0\t\tunderstudy'), { name: 'hello' })
  assert.equal(requestFrom('Lshared/passdb/o\u0001tx\to\u0001tx'), {
    name: 'lookup',
    key: 'shared/passdb/o\tx',
  })
  assert.equal(requestFrom('D12\t0'), { name: 'unsupported', command: 'D' })
})

/** What the oracle says to these lines, as one text. */
async function conversation(
  admit: (user: string) => Promise<Admission>,
  lines: string,
  replies: number,
): Promise<string> {
  const directory = await mkdtemp('/tmp/ut')
  const oracle = new PasswordOracle({
    entries: new Map([
      ['alice', { hash: '{PLAIN}a' }],
      ['bob', { hash: '{PLAIN}b' }],
    ]),
    domains: ['example.org'],
    admit,
    socket: join(directory, 'oracle'),
    log: () => {},
  })
  await oracle.listen()
  try {
    return await new Promise<string>((resolve, reject) => {
      let heard = ''
      const socket = createConnection(join(directory, 'oracle'), () => socket.write(lines))
      socket.on('error', reject)
      socket.on('data', (chunk) => {
        heard += chunk.toString()
        if (heard.split('\n').length > replies) {
          socket.destroy()
          resolve(heard)
        }
      })
    })
  } finally {
    await oracle.close()
    await rm(directory, { recursive: true })
  }
}

const HELLO = 'H3\t2\t0\t\tunderstudy\n'
const ask = (user: string): string => `Lshared/passdb/${user}\t${user}\n`

test('a user is answered with hash and account, a stranger with nothing', async () => {
  const lines = HELLO + ask('Alice@example.org') + ask('mallory')
  const heard = await conversation(() => Promise.resolve('ready'), lines, 2)
  assert.is(heard, 'O{"password":"{PLAIN}a","user":"alice"}\nN\n')
})

test('who may not be served, and whom nothing is known about, is a temporary failure', async () => {
  const lines = HELLO + ask('alice') + ask('bob')
  const admit = (user: string): Promise<Admission> =>
    user === 'alice' ? Promise.resolve('unavailable') : Promise.reject(new Error('no idea'))
  assert.match(await conversation(admit, lines, 2), /^F[^\n]+\nF[^\n]+\n$/)
})

test('answers keep the order of the questions, however long one takes', async () => {
  const admit = async (user: string): Promise<Admission> => {
    if (user === 'alice') await new Promise((resolve) => setTimeout(resolve, 30))
    return 'ready'
  }
  const heard = await conversation(admit, HELLO + ask('alice') + ask('bob'), 2)
  assert.match(heard, /"alice".*\n.*"bob"/)
})

test('anything but a password lookup is refused', async () => {
  const lines = `${HELLO}Lshared/userdb/alice\talice\nS1\tx\ty\n`
  const heard = await conversation(() => Promise.resolve('ready'), lines, 2)
  assert.match(heard, /^F[^\n]+\nF[^\n]+\n$/)
})

test('a login is asked for in one line that carries no readable password', () => {
  const lines = saslRequest('alice', 'se\tcret\n', '10.77.0.42', 7).split('\n')
  assert.equal(lines.slice(0, 2), ['VERSION\t1\t1', 'CPID\t7'])
  const token = Buffer.from('\0alice\0se\tcret\n').toString('base64')
  assert.match(lines[2] ?? '', /^AUTH\t1\tPLAIN\tservice=smtp\t.*rip=10\.77\.0\.42\tresp=/)
  assert.ok(lines[2]?.endsWith(token))
})

test('Dovecot’s verdicts are told apart', () => {
  assert.is(verdictFrom('OK\t1\tuser=alice'), 'accepted')
  assert.is(verdictFrom('FAIL\t1\tuser=alice'), 'wrong')
  assert.is(verdictFrom('FAIL\t1\tuser=alice\ttemp'), 'unavailable')
  assert.is(verdictFrom('FAIL\t1\tuser=alice\tcode=temp_fail'), 'unavailable')
  assert.is(verdictFrom('MECH\tPLAIN\tplaintext'), undefined)
})

test('without Dovecot no login is called wrong', async () => {
  const login = { user: 'alice', password: 'x', client: '10.77.0.42' }
  assert.is(await verifyLogin('/nonexistent/auth-client', login), 'unavailable')
})

test.run()
