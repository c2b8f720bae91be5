// Goal: the lab's judge finds what it is there to find; a judge that always acquits would make the demo worthless.
// Method: small histories with one planted flaw each, and the corpus and the page as pure functions.
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { messagesOf } from '../lab/corpus.ts'
import { stateEntries } from '../lab/demo/happenings.ts'
import { reportOf } from '../lab/demo/outcome.ts'
import { pageOf } from '../lab/demo/page.ts'
import { compare, type Digest, type MessageDigest } from '../lab/digest.ts'
import { decodeMailbox, encodeMailbox } from '../lab/mailbox-name.ts'
import { check, longestSilence } from '../lab/users/checker.ts'
import type { Operation, UserRecord } from '../lab/users/records.ts'

const test = suite('lab: checker, digest, corpus')

const message = (messageId: string, flags: readonly string[] = []): MessageDigest => ({
  messageId,
  flags,
  internalDate: '17-Jul-1996 02:44:25 +0000',
  sha256: messageId,
  bytes: 1,
})

const mailbox = (folders: Record<string, readonly MessageDigest[]>): Digest => ({
  anna: {
    folders: Object.fromEntries(
      Object.entries(folders).map(([name, messages]) => [
        name,
        {
          uidValidity: 1,
          uidNext: messages.length + 1,
          messages: Object.fromEntries(messages.map((one, index) => [index + 1, one])),
        },
      ]),
    ),
    subscriptions: ['INBOX'],
  },
})

let clock = 0
const did = (what: Partial<Operation> & Pick<Operation, 'verb' | 'item'>): Operation => {
  clock += 1
  const base = { kind: 'operation', user: 'anna', outcome: 'ok' } as const
  return { ...base, startedMs: clock, endedMs: clock, ...what }
}

const before = mailbox({ INBOX: [message('<old>')], Archive: [] })
const verdict = (records: readonly UserRecord[], after: Digest) => {
  const { lost, duplicated, resurrected, misplaced, flagsLost } = check(records, before, after)
  const named = { lost, duplicated, resurrected, misplaced, flagsLost }
  return Object.entries(named).flatMap(([what, them]) => them.map(({ item }) => `${what} ${item}`))
}

test('what was there and was left alone must be there', () => {
  assert.equal(verdict([], before), [])
  assert.equal(verdict([], mailbox({ INBOX: [] })), ['lost <old>'])
})

test('an accepted mail that is missing is lost; one that was refused is not', () => {
  const sent = { verb: 'send', user: 'ben', to: ['anna'], item: '<new>' } as const
  assert.equal(verdict([did(sent)], before), ['lost <new>'])
  assert.equal(verdict([did({ ...sent, outcome: 'fail' })], before), [])
  assert.equal(verdict([did({ ...sent, outcome: 'unknown' })], before), [])
})

test('a double is the sender’s own only after a lost answer', () => {
  const sent = { verb: 'send', user: 'ben', to: ['anna'], item: '<new>' } as const
  const twice = mailbox({ INBOX: [message('<old>'), message('<new>'), message('<new>')] })
  assert.equal(verdict([did(sent)], twice), ['duplicated <new>'])
  assert.equal(verdict([did({ ...sent, outcome: 'unknown' }), did(sent)], twice), [])
})

test('what was deleted must not come back', () => {
  const deleted = { verb: 'delete', item: '<old>' } as const
  assert.equal(verdict([did(deleted)], before), ['resurrected <old>'])
  assert.equal(verdict([did(deleted)], mailbox({ INBOX: [] })), [])
  assert.equal(verdict([did({ ...deleted, outcome: 'unknown' })], before), [])
  assert.equal(verdict([did({ ...deleted, outcome: 'unknown' })], mailbox({ INBOX: [] })), [])
  assert.equal(verdict([did(deleted), did(deleted)], mailbox({ INBOX: [] })), [])
  assert.equal(verdict([did(deleted), did(deleted)], before), ['resurrected <old>'])
})

test('a message is where it was moved, and has the flags it was given', () => {
  const moved = did({ verb: 'move', item: '<old>', folder: 'Archive' })
  const flagged = did({ verb: 'flag', item: '<old>', flag: 'Todo' })
  const good = mailbox({ Archive: [message('<old>', ['Todo'])] })
  assert.equal(verdict([moved, flagged], good), [])
  assert.equal(verdict([moved], before), ['misplaced <old>'])
  assert.equal(verdict([flagged], before), ['flagsLost <old>'])
})

test('experience is counted: closed doors, broken sessions, wrong passwords, changed identities', () => {
  const connect = {
    kind: 'connect',
    user: 'anna',
    service: 'imap',
    startedMs: 1,
    endedMs: 2,
  } as const
  const found = check(
    [
      { ...connect, outcome: 'ok', certificate: 'A' },
      { ...connect, outcome: 'ok', certificate: 'B' },
      { ...connect, outcome: 'not-connected', because: 'refused' },
      { kind: 'asked', startedMs: 1, endedMs: 2, outcome: 'not-connected' },
      { kind: 'lost', user: 'anna', service: 'imap', atMs: 3, because: 'reset' },
      { kind: 'false-auth', user: 'anna', service: 'imap', atMs: 3, text: 'no' },
      { kind: 'uid-validity', user: 'anna', folder: 'INBOX', value: 1, atMs: 1 },
      { kind: 'uid-validity', user: 'anna', folder: 'INBOX', value: 2, atMs: 2 },
      did({ verb: 'send', item: '<x>', outcome: 'fail', because: 'RCPT: 550 no such user' }),
    ],
    before,
    before,
  )
  assert.is(found.failedConnects, 2)
  assert.is(found.reconnects, 1)
  assert.is(found.falseAuthFailures, 1)
  assert.equal(found.certificates, ['A', 'B'])
  assert.equal(found.uidValidityChanges, ['anna/INBOX'])
  assert.is(found.refusedForGood.length, 1)
})

test('the longest silence is from one answer to the next, also where nobody is answered again', () => {
  const answered = (endedMs: number) =>
    ({ kind: 'asked', startedMs: 0, endedMs, outcome: 'answered' }) as const
  const records = [answered(100), answered(120), answered(920), answered(940)]
  assert.is(longestSilence(records, { fromMs: 110, toMs: 1_000 }), 800)
  assert.is(longestSilence(records, { fromMs: 930, toMs: 5_000 }), 4_060)
  assert.is(longestSilence([], { fromMs: 0, toMs: 500 }), 500)
})

test('the comparison names what differs, and takes UIDNEXT apart', () => {
  const flagged = mailbox({ INBOX: [message('<old>', ['\\Seen'])], Archive: [] })
  const { identical, accounts } = compare(before, flagged)
  assert.is(identical, false)
  assert.equal(accounts['anna']?.['INBOX']?.differences, [
    'UID 1: flags: production (), replica (\\Seen)',
  ])
  const inbox = before['anna']?.folders['INBOX']
  if (inbox === undefined) throw new Error('there is no INBOX')
  const folders = { ...before['anna']?.folders, INBOX: { ...inbox, uidNext: 66 } }
  const standingIn = compare(before, { anna: { folders, subscriptions: ['INBOX'] } })
  assert.is(standingIn.identical, true)
  assert.is(standingIn.accounts['anna']?.['INBOX']?.uidNextAgrees, false)
})

test('an account that one side does not show makes the sides differ', () => {
  const nothing: Digest = {
    anna: { folders: {}, subscriptions: [], unreadable: 'NO [UNAVAILABLE]' },
  }
  assert.equal(compare(nothing, nothing).unreadable, { anna: 'replica: NO [UNAVAILABLE]' })
  assert.is(compare(nothing, nothing).identical, false)
})

test('the corpus is the same for the same seed, of the promised sizes, with gaps', () => {
  const corpus = [...messagesOf('anna', 300, 1)]
  assert.equal(corpus, [...messagesOf('anna', 300, 1)])
  assert.not.equal(corpus[0], [...messagesOf('ben', 300, 1)][0])
  assert.is(corpus.filter(({ gone }) => !gone).length, 300)
  const sizes = corpus.map(({ content }) => content.length).sort((a, b) => a - b)
  const median = sizes[150] ?? 0
  assert.ok(median > 4_000 && median < 10_000, `median ${median}`)
  assert.ok((sizes.at(-1) ?? 0) < 600_000)
})

test('mailbox names survive modified UTF-7', () => {
  assert.is(encodeMailbox('日本語/会議'), '&ZeVnLIqe-/&TxqLcA-')
  for (const name of ['INBOX', 'Ärger & Fröhlich', '日本語/会議', 'a&b', '😀'])
    assert.is(decodeMailbox(encodeMailbox(name)), name)
})

test('states are read from the agent’s log, whatever else stands there', () => {
  const log = [
    '{"at":"2026-01-01T00:00:00.000Z","level":"info","event":"service.judged"}',
    'Error: something with .entered" in it'.replace('"', ''),
    '{"because":"so","at":"2026-01-01T00:00:01.000Z","level":"info","event":"failover.entered"}',
  ].join('\n')
  const atMs = Date.parse('2026-01-01T00:00:01.000Z')
  assert.equal(stateEntries(log), [{ name: 'failover', atMs, because: 'so' }])
})

test('the page holds the whole run and nothing that could be executed', () => {
  const states = [{ name: 'failover', atMs: 2_000, because: '<script>alert(1)</script>' }]
  const chapter = {
    fault: 'kill',
    faultMs: 1_000,
    failoverMs: 2_000,
    healMs: 3_000,
    backMs: 4_000,
  } as const
  const marks = [{ kind: 'fault', label: 'servers killed', atMs: 1_000 } as const]
  const records: UserRecord[] = [{ kind: 'asked', startedMs: 1, endedMs: 2, outcome: 'answered' }]
  const tale = {
    startedMs: 0,
    endedMs: 5_000,
    states,
    marks,
    chapters: [chapter],
    users: ['anna'],
    rests: [],
    records,
  }
  const report = reportOf(tale, check(records, before, before), [true], undefined)
  const page = pageOf(tale, report, new Date(0))
  assert.match(page, 'servers killed')
  assert.match(page, 'standing in')
  assert.not.match(page, '<script')
  assert.is(report.gapMs.kill, 4_998)
  assert.is(report.gapMs.linkDown, null)
})

test.run()
