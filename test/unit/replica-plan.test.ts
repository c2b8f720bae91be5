// Goal: what has to be pulled, what counts as equal, and when to look again, are decided rightly.
// Method: pure functions on folders written by hand.
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import {
  afterCheck,
  arrivals,
  type Burst,
  backoffMs,
  burstDueMs,
  differences,
  dropped,
  type FolderStatus,
  hasReached,
  hinted,
  isQuiet,
  type Pulled,
  pullFor,
  roundMs,
  specialUseDifferences,
} from '../../agent/replica/mail/plan.ts'

const test = suite('plan')

const folder = (path: string, more: Partial<FolderStatus> = {}): FolderStatus => ({
  path,
  uidValidity: 7,
  uidNext: 11,
  messages: 8,
  unseen: 2,
  highestModSeq: 40n,
  ...more,
})

const known = (path: string, more: Partial<Pulled> = {}): Pulled & { uidNext: number } => ({
  path,
  uidValidity: 7,
  uidNext: 11,
  productionUidNext: 11,
  productionModSeq: 40n,
  productionMessages: 8,
  productionUnseen: 2,
  ...more,
})

test('nothing is pulled while production is as it was', () => {
  assert.equal(pullFor([known('INBOX')], [], [folder('INBOX')]), { what: 'nothing' })
})

test('only folders that changed are pulled', () => {
  const before = ['INBOX', 'Sent', 'Trash'].map((path) => known(path))
  for (const change of [{ uidNext: 12 }, { messages: 7 }, { unseen: 1 }, { highestModSeq: 41n }])
    assert.equal(pullFor(before, [], [folder('INBOX'), folder('Sent', change), folder('Trash')]), {
      what: 'folders',
      paths: ['Sent'],
    })
})

test('a folder made, gone, renamed or made anew asks for the whole account', () => {
  const before = [known('INBOX'), known('Sent')]
  const seen = [
    [folder('INBOX')],
    [folder('INBOX'), folder('Sent'), folder('New')],
    [folder('INBOX'), folder('Renamed')],
    [folder('INBOX'), folder('Sent', { uidValidity: 8 })],
  ]
  for (const now of seen) assert.equal(pullFor(before, [], now), { what: 'account' })
})

test('a subscription that changed asks for the whole account', () => {
  const before = [known('A'), known('B')]
  const seen = [folder('A', { subscribed: true }), folder('B', { subscribed: false })]
  assert.equal(pullFor(before, ['A', 'Ghost'], seen), { what: 'nothing' })
  assert.equal(pullFor(before, [], seen), { what: 'account' })
  assert.equal(pullFor(before, ['A', 'B'], seen), { what: 'account' })
})

test('many changed folders are pulled as one account', () => {
  const paths = [...'abcdefg']
  const now = paths.map((path) => folder(path, { unseen: 0 }))
  assert.equal(
    pullFor(
      paths.map((path) => known(path)),
      [],
      now,
    ),
    { what: 'account' },
  )
})

test('differences are told in words, MODSEQs are none', () => {
  assert.equal(differences([folder('INBOX')], [folder('INBOX', { highestModSeq: 99n })]), [])
  assert.equal(
    differences(
      [folder('INBOX'), folder('Sent'), folder('A')],
      [folder('INBOX', { uidNext: 10 }), folder('A'), folder('B')],
    ),
    [
      'INBOX: uidNext is 11, in the replica 10',
      'Sent: missing in the replica',
      'B: only in the replica',
    ],
  )
})

test('production is quiet only when not even a MODSEQ moved', () => {
  assert.ok(isQuiet([folder('A'), folder('B')], [folder('B'), folder('A')]))
  assert.not.ok(isQuiet([folder('A')], [folder('A', { highestModSeq: 41n })]))
})

test('the replica has reached production when it is equal or ahead, not when it is another folder', () => {
  assert.ok(hasReached(folder('A'), folder('A')))
  assert.ok(hasReached(folder('A', { uidNext: 12, messages: 9 }), folder('A')))
  assert.not.ok(hasReached(folder('A', { messages: 7 }), folder('A')))
  assert.not.ok(hasReached(folder('A', { uidNext: 12, uidValidity: 8 }), folder('A')))
})

test('folders lost by a failed pull are told from folders that production deleted', () => {
  const before = [known('INBOX'), known('Sent'), known('Old'), known('Made anew')]
  const production = [folder('INBOX'), folder('Sent'), folder('Made anew', { uidValidity: 9 })]
  assert.equal(dropped(before, production, [folder('INBOX')]), ['Sent'])
  assert.equal(dropped(before, production, [folder('INBOX', { uidNext: 1 }), folder('Sent')]), [
    'INBOX',
  ])
  assert.equal(dropped(before, production, production), [])
})

test('special uses are compared where production has one', () => {
  const production = [folder('Gesendet', { specialUse: '\\Sent' }), folder('Junk')]
  assert.equal(specialUseDifferences(production, new Map([['Gesendet', '\\Sent']])), [])
  assert.equal(specialUseDifferences(production, new Map()), [
    'Gesendet: special use is \\Sent, in the replica none',
  ])
})

test('failures are met with ever more patience, up to a minute', () => {
  assert.equal([1, 2, 3, 8, 1_000].map(backoffMs), [500, 1_000, 2_000, 60_000, 60_000])
})

test('checks of all accounts never take more than a fifth of the time', () => {
  assert.is(roundMs(5_000, 20, 3), 5_000)
  assert.is(roundMs(250, 500, 3), 7_500)
})

test('messages that arrived are counted over all known folders', () => {
  const now = [folder('INBOX', { uidNext: 13 }), folder('Lists', { uidNext: 12 }), folder('New')]
  assert.is(arrivals([known('INBOX'), known('Lists')], now), 3)
})

test('after a hint the account is looked at ever more rarely, until the message was seen', () => {
  let burst: Burst | undefined = hinted(undefined, 1_000)
  const looks: number[] = []
  while (burst !== undefined) {
    const atMs = burstDueMs(burst)
    looks.push(atMs - 1_000)
    burst = afterCheck(burst, atMs, 0)
  }
  assert.equal(looks, [0, 15, 40, 80, 160, 320])
  assert.is(afterCheck(hinted(undefined, 1_000), 1_000, 1), undefined)
})

test('a look that took long skips those that it outlasted', () => {
  const burst = afterCheck(hinted(undefined, 1_000), 1_050, 0)
  assert.is(burst && burstDueMs(burst), 1_080)
})

test('hints in a row owe a message each, and a hint during a look begins the looks anew', () => {
  const twice = hinted(hinted(undefined, 1_000), 1_005)
  assert.ok(afterCheck(twice, 1_005, 1), 'one of two seen')
  assert.is(afterCheck(twice, 1_005, 2), undefined)
  const during = afterCheck(twice, 1_002, 1)
  assert.is(during && burstDueMs(during), 1_005)
})

test.run()
