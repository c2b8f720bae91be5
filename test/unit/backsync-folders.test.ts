// Goal: folders are recognised through renames, deletions and name clashes on either side.
// Method: lists of (name, UIDVALIDITY) for snapshot, appliance and production; the plan is compared.
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { type FolderPlan, folderPlan } from '../../agent/replica/mail/backsync-folders.ts'

const test = suite('folders of an account in back-sync')

/** `'INBOX 1, Sent 2'` → names and UIDVALIDITYs. */
const list = (text: string) =>
  text
    .split(', ')
    .filter(Boolean)
    .map((item) => ({
      path: item.slice(0, item.lastIndexOf(' ')),
      uidValidity: Number(item.slice(item.lastIndexOf(' '))),
    }))

const plan = (snapshot: string, appliance: string, production: string): FolderPlan =>
  folderPlan(list(snapshot), list(appliance), list(production))

const same = 'INBOX 1, Sent 2'

test('folders that are the same everywhere are paired, and production keeps its own new ones', () => {
  const { steps, pairs, removes } = plan(same, same, `${same}, Own 9`)
  assert.equal(
    pairs.map(({ path }) => path),
    ['INBOX', 'Sent'],
  )
  assert.is(steps.length + removes.length, 0)
})

test('a folder made by users is made at production, then takes its UIDVALIDITY', () => {
  assert.equal(plan(same, `${same}, New 7`, same).steps, [{ do: 'create', path: 'New' }])
  const made = plan(same, `${same}, New 7`, `${same}, New 8`)
  assert.equal(made.steps, [{ do: 'adopt', path: 'New', uidValidity: 8 }])
  assert.equal(made.pairs.at(-1), { path: 'New', production: 'New', snapshot: undefined })
})

test('a renamed folder is renamed, parents before children', () => {
  const { steps } = plan('A 1, A/b 2', 'C 1, C/b 2', 'A 1, A/b 2')
  assert.equal(steps, [
    { do: 'rename', from: 'A', to: 'C' },
    { do: 'rename', from: 'A/b', to: 'C/b' },
  ])
  assert.equal(plan('A/b 2', 'C/b 2', 'C/b 2').steps, [{ do: 'follow', from: 'A/b', to: 'C/b' }])
})

test('a folder that production renamed is found under its new name, which it keeps', () => {
  assert.equal(plan('A 1', 'A 1', 'B 1').pairs, [{ path: 'A', production: 'B', snapshot: 'A' }])
  assert.equal(plan('A 1', 'C 1', 'B 1').steps, [])
  assert.equal(plan('A 1', 'C 1', 'A 1, C 5').steps, [])
})

test('a UIDVALIDITY that several folders share proves no rename', () => {
  const { steps, removes } = plan('A 1, B 1', 'C 1, B 1, D 1', 'A 1, B 1')
  assert.equal(
    steps.map((step) => step.do),
    ['create', 'create'],
  )
  assert.equal(removes, [{ do: 'remove', path: 'A', production: 'A' }])
})

test('a folder that users deleted is removed last, children first', () => {
  const { removes } = plan('A 1, A/b 2, INBOX 3', 'INBOX 3', 'A 1, A/b 2, INBOX 3')
  assert.equal(
    removes.map(({ path }) => path),
    ['A/b', 'A'],
  )
  assert.equal(plan('A 1', '', '').steps, [{ do: 'forget', path: 'A' }])
})

test('a folder that users deleted and made anew makes room first', () => {
  const { steps, removes } = plan('A 1', 'A 5', 'A 1')
  assert.equal(steps, [{ do: 'remove', path: 'A', production: 'A' }])
  assert.equal(removes, [])
})

test('a folder that production deleted is told from one that it has made anew', () => {
  assert.equal(plan('A 1', 'A 1', '').deletedThere, ['A'])
  assert.equal(plan('A 1', 'A 1', 'A 9').strangers, ['A'])
})

test.run()
