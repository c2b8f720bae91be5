// Goal: a name or address in any spelling means one account, or nobody.
// Method: pure functions on small lists; a password file with each mistake an administrator makes.
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { accountOf } from '../../agent/serving/accounts.ts'
import { resolve } from '../../agent/serving/directory.ts'
import { PasswdFileRejected, passwdEntries } from '../../agent/serving/passwd-file.ts'

const domains = ['example.org', 'bücher.example']
const users = new Set(['alice', 'carol@example.org', 'dave@example.org', 'dave@bücher.example'])
const test = suite('serving directory')

test('case of letters and a local domain do not matter', () => {
  for (const name of ['alice', 'Alice', ' ALICE ', 'alice@example.org', 'alice@Example.ORG'])
    assert.is(accountOf(name, domains, users), 'alice', name)
})

test('an account that is listed with its domain is found without it', () => {
  assert.is(accountOf('Carol', domains, users), 'carol@example.org')
})

test('a listed domain is not exchanged for another one', () => {
  assert.is(accountOf('carol@bücher.example', domains, users), undefined)
})

test('a bare name that means two accounts means none', () => {
  const two = new Set(['dave@example.org', 'dave@example.net'])
  assert.is(accountOf('dave', ['example.org', 'example.net'], two), undefined)
})

test('a domain in Unicode and the same in ASCII are one domain', () => {
  assert.is(accountOf('alice@xn--bcher-kva.example', domains, users), 'alice')
  assert.is(accountOf('alice@BÜCHER.example', domains, users), 'alice')
})

test('a foreign domain is nobody of ours', () => {
  for (const name of ['alice@elsewhere.test', 'alice@sub.example.org', 'alice@badexample.org', '@'])
    assert.is(accountOf(name, domains, users), undefined, name)
})

const settings = {
  production: { domains },
  accounts: {
    passwdFile: '/x',
    complete: false,
    aliases: { 'Team@example.org': ['alice', 'carol', 'nobody'], info: ['alice', 'ALICE'] },
  },
}

test('an address leads to users, to nobody that we know, or elsewhere', () => {
  assert.equal(resolve('Alice@example.org', settings, users), { users: ['alice'] })
  assert.is(resolve('zoe@example.org', settings, users), 'unknown-local')
  assert.is(resolve('alice@elsewhere.test', settings, users), 'elsewhere')
})

test('an alias leads to each of its users once, and passes over those that do not exist', () => {
  const both = { users: ['alice', 'carol@example.org'] }
  assert.equal(resolve('team@EXAMPLE.org', settings, users), both)
  assert.is(resolve('team@bücher.example', settings, users), 'unknown-local')
  assert.equal(resolve('info@bücher.example', settings, users), { users: ['alice'] })
})

test('a route through us to another domain is not taken', () => {
  assert.is(resolve('x%elsewhere.test@example.org', settings, users), 'unknown-local')
  assert.is(resolve('"x@elsewhere.test"@example.org', settings, users), 'unknown-local')
})

test('a password file gives each user its hash', () => {
  const text =
    '# users\n\nAlice:{PLAIN}se$cret:1000:::\r\nbob@Example.org:{ARGON2ID}$argon2id$v=19\n'
  assert.equal(
    [...passwdEntries(text)],
    [
      ['alice', { hash: '{PLAIN}se$cret' }],
      ['bob@example.org', { hash: '{ARGON2ID}$argon2id$v=19' }],
    ],
  )
})

test('each mistake in a password file is named with its line', () => {
  const text = ['good:{PLAIN}x', 'bare', 'plain:secret', 'Good:{PLAIN}y', '../up:{PLAIN}z'].join(
    '\n',
  )
  try {
    passwdEntries(text)
    assert.unreachable()
  } catch (error: unknown) {
    assert.instance(error, PasswdFileRejected)
    const { problems } = error as PasswdFileRejected
    assert.is(problems.length, 4)
    for (const [index, line] of ['line 2: ', 'line 3: ', 'line 4: ', 'line 5: '].entries())
      assert.ok(problems[index]?.startsWith(line), problems[index])
  }
})

test('names that would leave their directory are refused', () => {
  for (const name of ['..', '.hidden', 'a/b', 'a b', ''])
    assert.throws(() => passwdEntries(`${name}:{PLAIN}x`), /not a user name/, name)
})

test.run()
