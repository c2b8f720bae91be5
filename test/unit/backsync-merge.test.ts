// Goal: the rules by which two states and their common ancestor become one, each rule on its own.
// Method: small folders written out by hand; the plan is compared as a whole.
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { Facts, Flags, Triple } from '../../agent/replica/mail/merge.ts'
import { ranges, sameFlags, steps, uidSets, unboundOf } from '../../agent/replica/mail/merge.ts'

const test = suite('three-way merge of a folder')

type Folder = Readonly<Record<number, string>>

const flagsOf = (text: string): Flags => text.split(' ').filter(Boolean)
const messagesOf = (folder: Folder) =>
  new Map(Object.entries(folder).map(([uid, flags]) => [Number(uid), flagsOf(flags)]))

const triple = (
  snapshot: Folder,
  appliance: Folder,
  production: Folder,
  uidNext: { appliance?: number; production?: number } = {},
): Triple => ({
  snapshot: messagesOf(snapshot),
  appliance: view(appliance, uidNext.appliance ?? 100),
  production: view(production, uidNext.production ?? 10),
})
const view = (folder: Folder, uidNext: number) => ({
  uidNext,
  highestModSeq: 0n,
  messages: messagesOf(folder),
})

/** The letter at each UID. */
const facts = (appliance: Folder, production: Folder): Facts => ({
  appliance: identities(appliance),
  production: identities(production),
})
const identities = (folder: Folder) =>
  new Map(Object.entries(folder).map(([uid, letter]) => [Number(uid), { exact: letter, letter }]))
const noFacts = facts({}, {})

test('what arrived on the appliance is appended under its own UIDs, in ascending order', () => {
  const plan = steps(triple({ 1: '' }, { 1: '', 80: '', 70: '' }, { 1: '' }), noFacts, false)
  assert.equal(plan, [{ do: 'append', uids: [70, 80] }])
})

test('only flags that changed on the appliance are applied, and only where production lacks them', () => {
  const plan = steps(
    triple(
      { 1: '', 2: '\\Seen', 3: '$a', 4: '' },
      { 1: '\\Seen', 2: '', 3: '$a', 4: '\\Seen' },
      { 1: '\\Flagged', 2: '\\Answered \\Seen', 3: '', 4: '\\seen' },
    ),
    noFacts,
    false,
  )
  assert.equal(plan, [
    { do: 'store', uids: [1], sign: '+', flag: '\\Seen' },
    { do: 'store', uids: [2], sign: '-', flag: '\\Seen' },
  ])
})

test('a message expunged on the appliance is expunged, one expunged by production stays expunged', () => {
  const plan = steps(
    triple({ 1: '', 2: '', 3: '' }, { 1: '', 2: '' }, { 1: '', 3: '' }),
    noFacts,
    false,
  )
  assert.equal(plan, [{ do: 'expunge', uids: [3], why: 'deleted' }])
})

test('an arrival that production holds already under its UID is not appended again, its flags follow', () => {
  const plan = steps(
    triple({}, { 70: '\\Seen' }, { 70: '\\Flagged' }, { production: 71 }),
    facts({ 70: 'a' }, { 70: 'a' }),
    false,
  )
  assert.equal(plan, [
    { do: 'store', uids: [70], sign: '+', flag: '\\Seen' },
    { do: 'store', uids: [70], sign: '-', flag: '\\Flagged' },
  ])
})

test('an arrival whose UID production has given to something else is filed anew before all else', () => {
  const other = triple({}, { 70: '', 71: '' }, { 70: '' }, { production: 71 })
  const plan = steps(other, facts({ 70: 'a' }, { 70: 'b' }), false)
  assert.equal(plan, [{ do: 'refile-here', uids: [70], above: 100 }])
  const expunged = steps(triple({}, { 70: '' }, {}, { production: 171 }), noFacts, false)
  assert.equal(expunged, [{ do: 'refile-here', uids: [70], above: 171 }])
})

test('a letter delivered on both sides stays once, two equal letters of production are not both removed', () => {
  const plan = steps(
    triple({}, { 70: '' }, { 5: '', 6: '' }),
    facts({ 70: 'a' }, { 5: 'a', 6: 'a' }),
    false,
  )
  assert.equal(plan, [
    { do: 'append', uids: [70] },
    { do: 'expunge', uids: [5], why: 'twin' },
  ])
})

test('what production got by itself stays where it is until the last pass, which moves it to the tail', () => {
  const folder = triple({ 1: '' }, { 1: '' }, { 1: '', 5: '', 120: '' })
  assert.equal(steps(folder, noFacts, false), [])
  assert.equal(steps(folder, noFacts, true), [
    { do: 'raise-uidnext', uidNext: 100 },
    { do: 'copy', uids: [5] },
    { do: 'expunge', uids: [5], why: 'refiled' },
  ])
})

test('a message that was copied to the tail by a run that was cut off is not copied again', () => {
  const folder = triple({}, {}, { 5: '', 6: '', 101: '' }, { production: 102 })
  assert.equal(steps(folder, facts({}, { 5: 'a', 6: 'b', 101: 'a' }), true), [
    { do: 'copy', uids: [6] },
    { do: 'expunge', uids: [5, 6], why: 'refiled' },
  ])
})

test('MODSEQs are raised where the appliance is ahead, and never on a server that keeps none', () => {
  const same = triple({ 1: '' }, { 1: '' }, { 1: '' })
  const at = (appliance: bigint, production: bigint): Triple => ({
    ...same,
    appliance: { ...same.appliance, highestModSeq: appliance },
    production: { ...same.production, highestModSeq: production },
  })
  assert.equal(steps(at(1_010n, 10n), noFacts, false), [{ do: 'raise-modseq', modSeq: 1_010n }])
  assert.equal(steps(at(10n, 10n), noFacts, false), [])
  assert.equal(steps(at(10n, 0n), noFacts, false), [])
})

test('items not yet at production are counted: arrivals, changed flags, expunges', () => {
  const [snapshot, appliance] = [
    { 1: '', 2: '', 3: '\\Seen' },
    { 1: '\\Seen', 3: '\\Seen', 70: '' },
  ]
  assert.is(unboundOf(messagesOf(snapshot), messagesOf(appliance)), 3)
})

test('flags are compared without regard to case and order', () => {
  assert.ok(sameFlags(['$a', '\\Seen'], ['\\seen', '$A']))
  assert.not(sameFlags(['$a'], ['$a', '\\Seen']))
})

test('UIDs are written as ranges, in lines that are not too long', () => {
  assert.equal(ranges([5, 3, 4, 9]), [
    [3, 5],
    [9, 9],
  ])
  assert.equal(uidSets([1, 2, 3, 7]), ['1:3,7'])
  const sets = uidSets(
    Array.from({ length: 1_000 }, (_, n) => 1_000 + 2 * n),
    100,
  )
  assert.ok(sets.every((set) => set.length <= 100))
  assert.is(sets.flatMap((set) => set.split(',')).length, 1_000)
})

test.run()
