// Goal: the ledger keeps what it is told across restarts, and says clearly when it cannot be trusted.
// Method: real SQLite files in a temporary directory.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { type FolderState, Ledger, LedgerDamaged } from '../../agent/replica/mail/ledger.ts'

const test = suite<{ directory: string; path: string }>('ledger')

test.before.each((context) => {
  context.directory = mkdtempSync(join(tmpdir(), 'ut-ledger-'))
  context.path = join(context.directory, 'ledger.db')
})

test.after.each((context) => rmSync(context.directory, { recursive: true }))

const state = (path: string, more: Partial<FolderState> = {}): FolderState => ({
  path,
  uidValidity: 4_294_967_295,
  uidNext: 10,
  highestModSeq: 9_007_199_254_740_993n,
  productionUidNext: 10,
  productionModSeq: 9_007_199_254_740_995n,
  productionMessages: 3,
  productionUnseen: 1,
  proved: false,
  ...more,
})

const messages = (entries: readonly (readonly [number, readonly string[]])[]) => new Map(entries)

test('an account never heard of is incomplete', ({ path }) => {
  const ledger = Ledger.open(path)
  assert.equal(ledger.account('anna'), {
    user: 'anna',
    complete: false,
    passes: 0,
    failures: 0,
    gap: 'none',
  })
  assert.equal(ledger.accounts(), [])
  ledger.close()
})

test('what was recorded is there after a restart', ({ path }) => {
  let ledger = Ledger.open(path)
  ledger.record('anna', { complete: true, passes: 3, lastPassAtMs: 1_700_000_000_000 })
  ledger.record('anna', { error: 'refused', failures: 2, gap: 'made' })
  ledger.recordFolder('anna', {
    ...state('Ärger & Fröhlich/日本語', { proved: true }),
    messages: messages([
      [1, ['$Label1', '\\Seen']],
      [9, []],
    ]),
  })
  ledger.recordSubscriptions('anna', ['INBOX', 'Ghost'])
  ledger.close()
  ledger = Ledger.open(path)
  assert.equal(ledger.account('anna'), {
    user: 'anna',
    complete: true,
    passes: 3,
    lastPassAtMs: 1_700_000_000_000,
    error: 'refused',
    failures: 2,
    gap: 'made',
  })
  assert.equal(ledger.folders('anna'), [state('Ärger & Fröhlich/日本語', { proved: true })])
  const folder = ledger.folder('anna', 'Ärger & Fröhlich/日本語')
  assert.equal(folder?.highestModSeq, 9_007_199_254_740_993n)
  assert.equal(
    [...(folder?.messages ?? [])],
    [
      [1, ['$Label1', '\\Seen']],
      [9, []],
    ],
  )
  assert.equal(ledger.subscriptions('anna'), ['Ghost', 'INBOX'])
  ledger.close()
})

test('an error is cleared by saying so, and only then', ({ path }) => {
  const ledger = Ledger.open(path)
  ledger.record('anna', { error: 'refused', failures: 1 })
  ledger.record('anna', { passes: 1 })
  assert.is(ledger.account('anna').error, 'refused')
  ledger.record('anna', { error: undefined, failures: 0 })
  assert.is(ledger.account('anna').error, undefined)
  assert.is(ledger.account('anna').passes, 1)
  ledger.close()
})

test('a delta changes flags, adds messages, and removes those that are no longer present', ({
  path,
}) => {
  const ledger = Ledger.open(path)
  ledger.recordFolder('anna', {
    ...state('INBOX'),
    messages: messages([
      [1, []],
      [2, ['\\Seen']],
      [3, []],
    ]),
  })
  ledger.applyFolderDelta('anna', {
    state: state('INBOX', { uidNext: 12 }),
    changed: messages([
      [2, ['\\Flagged']],
      [11, []],
    ]),
  })
  assert.is(ledger.messageCount('anna', 'INBOX'), 4)
  ledger.applyFolderDelta('anna', {
    state: state('INBOX', { uidNext: 13 }),
    changed: messages([[12, []]]),
    present: [2, 11, 12],
  })
  const folder = ledger.folder('anna', 'INBOX')
  assert.is(folder?.uidNext, 13)
  assert.equal(
    [...(folder?.messages ?? [])],
    [
      [2, ['\\Flagged']],
      [11, []],
      [12, []],
    ],
  )
  ledger.close()
})

test('folders are renamed and forgotten with their messages', ({ path }) => {
  const ledger = Ledger.open(path)
  ledger.recordFolder('anna', { ...state('Old'), messages: messages([[1, []]]) })
  ledger.renameFolder('anna', 'Old', 'New')
  assert.is(ledger.folder('anna', 'Old'), undefined)
  assert.is(ledger.messageCount('anna', 'New'), 1)
  ledger.forgetFolder('anna', 'New')
  ledger.recordFolder('anna', { ...state('New'), messages: messages([]) })
  assert.is(ledger.messageCount('anna', 'New'), 0)
  ledger.close()
})

test('states are written without touching messages', ({ path }) => {
  const ledger = Ledger.open(path)
  ledger.recordFolder('anna', { ...state('INBOX'), messages: messages([[1, []]]) })
  ledger.recordStates('anna', [state('INBOX', { proved: true, productionUnseen: 0 })])
  assert.equal(ledger.folders('anna'), [state('INBOX', { proved: true, productionUnseen: 0 })])
  assert.is(ledger.messageCount('anna', 'INBOX'), 1)
  ledger.close()
})

test('accounts do not see each other, and one can be forgotten', ({ path }) => {
  const ledger = Ledger.open(path)
  for (const user of ['anna', 'bert']) {
    ledger.record(user, { complete: true })
    ledger.recordFolder(user, { ...state('INBOX'), messages: messages([[1, [user]]]) })
    ledger.recordSubscriptions(user, [user])
  }
  ledger.forgetAccount('anna')
  assert.equal(
    ledger.accounts().map(({ user }) => user),
    ['bert'],
  )
  assert.equal(ledger.folders('anna'), [])
  assert.equal(ledger.subscriptions('bert'), ['bert'])
  assert.is(ledger.messageCount('bert', 'INBOX'), 1)
  ledger.close()
})

test('a folder of 200,000 messages is written, changed and read', ({ path }) => {
  const ledger = Ledger.open(path)
  const many = new Map<number, readonly string[]>()
  for (let uid = 1; uid <= 200_000; uid += 1) many.set(uid, uid % 2 === 0 ? ['\\Seen'] : [])
  ledger.recordFolder('big', { ...state('INBOX'), messages: many })
  ledger.applyFolderDelta('big', {
    state: state('INBOX'),
    changed: messages([[7, ['\\Flagged']]]),
    present: [...many.keys()].filter((uid) => uid !== 8),
  })
  const read = ledger.folder('big', 'INBOX')?.messages
  assert.is(read?.size, 199_999)
  assert.equal(read?.get(7), ['\\Flagged'])
  assert.equal(read?.get(10), ['\\Seen'])
  ledger.close()
})

test('a file that is no database is refused in words', ({ path }) => {
  writeFileSync(path, 'this is not a database, it only looks long enough to be one'.repeat(100))
  assert.throws(
    () => Ledger.open(path),
    (error: unknown) => error instanceof LedgerDamaged && error.message.includes(path),
  )
})

test('a damaged page is noticed when the ledger is opened', ({ path }) => {
  const ledger = Ledger.open(path)
  const many = new Map<number, readonly string[]>()
  for (let uid = 1; uid <= 5_000; uid += 1) many.set(uid, ['\\Seen'])
  ledger.recordFolder('anna', { ...state('INBOX'), messages: many })
  ledger.close()
  const bytes = readFileSync(path)
  bytes.fill(0xa5, 8_192, bytes.length)
  writeFileSync(path, bytes)
  assert.throws(
    () => Ledger.open(path),
    (error: unknown) => error instanceof LedgerDamaged,
  )
})

test('a ledger of a later release is refused', ({ path }) => {
  Ledger.open(path).close()
  const db = new DatabaseSync(path)
  db.exec('PRAGMA user_version = 99')
  db.close()
  assert.throws(
    () => Ledger.open(path),
    (error: unknown) => error instanceof LedgerDamaged && /schema 99/.test(error.message),
  )
})

test('a path where nothing can be written is an ordinary error, not damage', ({ directory }) => {
  assert.throws(
    () => Ledger.open(join(directory, 'missing', 'ledger.db')),
    (error: unknown) => !(error instanceof LedgerDamaged),
  )
})

test.run()
