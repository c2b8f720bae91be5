// Goal: what passes on the wire becomes the right hints, and nothing that passes can make the table grow.
// Method: segments written by hand, as a capture would give them.
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { type TriggerSegment, Triggers } from '../../agent/replica/mail/triggers.ts'

const test = suite('triggers')

const services = [
  { port: 25, protocol: 'smtp', tls: 'starttls', essential: true },
  { port: 465, protocol: 'submission', tls: 'implicit', essential: true },
  { port: 993, protocol: 'imap', tls: 'implicit', essential: true },
] as const

const USERS = new Map([
  ['anna@example.test', ['anna']],
  ['team@example.test', ['anna', 'bert']],
])

function bed() {
  const hints: string[] = []
  const triggers = new Triggers({
    services,
    resolve: (address) => USERS.get(address.toLowerCase()) ?? [],
    hint: (user, path) => hints.push(user === undefined ? 'somebody' : `${user} ${path}`),
  })
  let atMs = 0
  const pass = (
    from: TriggerSegment['from'],
    text: string,
    more: Partial<TriggerSegment> = {},
  ): void => {
    atMs += 1
    const payload = Buffer.from(text, 'latin1')
    triggers.segment({
      atMs,
      service: 'smtp:25',
      from,
      client: '10.77.0.20:40000',
      syn: false,
      rst: false,
      fin: false,
      payload,
      payloadBytes: payload.length,
      ...more,
    })
  }
  return { hints, triggers, pass, after: (ms: number) => (atMs += ms) }
}

test('an accepted message hints at the mailbox of each of its recipients, once', () => {
  const { hints, pass } = bed()
  pass('production', '220 mail.example.test\r\n')
  pass('users', 'EHLO client\r\n')
  pass('production', '250-mail.example.test\r\n250 PIPELINING\r\n')
  pass('users', 'MAIL FROM:<x@example.net> SIZE=100\r\n')
  pass('production', '250 Ok\r\n')
  pass('users', 'RCPT TO:<Team@example.test>\r\nrcpt to: <anna@example.test>\r\n')
  pass('production', '250 Ok\r\n250 Ok\r\n')
  assert.equal(hints, [])
  pass('users', 'DATA\r\n')
  pass('production', '354 End data with <CR><LF>.<CR><LF>\r\n')
  pass('users', 'Subject: x\r\n\r\nRCPT TO:<bert@example.test>\r\n')
  assert.equal(hints, [])
  pass('users', '.\r\n')
  pass('production', '250 2.0.0 Ok: queued\r\n')
  assert.equal(hints, ['anna INBOX', 'bert INBOX'])
})

test('pipelined commands, and lines torn apart by segments, are understood', () => {
  const { hints, pass } = bed()
  pass('users', 'MAIL FROM:<x@example.net>\r\nRCPT TO:<anna@exam')
  pass('users', 'ple.test>\r\nDATA\r\n')
  pass('production', '250 Ok\r\n250 Ok\r\n354 G')
  pass('production', 'o on\r\n')
  pass('users', 'Subject: x\r\n\r\n.\r\nQUIT\r\n')
  pass('production', '250 Ok\r\n221 Bye\r\n')
  assert.equal(hints, ['anna INBOX'])
})

test('a message that production refuses, and a transaction that was reset, hint at nothing', () => {
  const { hints, pass } = bed()
  pass('users', 'MAIL FROM:<x@example.net>\r\nRCPT TO:<anna@example.test>\r\nDATA\r\n')
  pass('production', '250 Ok\r\n250 Ok\r\n354 Go on\r\n')
  pass('users', 'x\r\n.\r\n')
  pass('production', '552 Too big\r\n')
  pass('users', 'MAIL FROM:<x@example.net>\r\nRCPT TO:<anna@example.test>\r\nRSET\r\n')
  pass('users', 'MAIL FROM:<x@example.net>\r\nRCPT TO:<else@example.net>\r\nDATA\r\n')
  pass('production', '354 Go on\r\n')
  pass('users', 'x\r\n.\r\n')
  pass('production', '250 Ok\r\n')
  assert.equal(hints, [])
})

test('a message sent by BDAT counts as one sent by DATA', () => {
  const { hints, pass } = bed()
  pass('users', 'MAIL FROM:<x@example.net>\r\nRCPT TO:<anna@example.test>\r\n')
  pass('production', '250 Ok\r\n250 Ok\r\n')
  pass('users', 'BDAT 3 LAST\r\nabc')
  pass('production', '250 Ok\r\n')
  assert.equal(hints, ['anna INBOX'])
})

test('after STARTTLS, and where nothing can be read at all, users who act hint at somebody', () => {
  const { hints, pass, after } = bed()
  pass('users', 'STARTTLS\r\n')
  pass('production', '220 Ready\r\n')
  assert.equal(hints, [])
  pass('users', '\x16\x03\x01RCPT TO:<anna@example.test>\r\n')
  assert.equal(hints, ['somebody'])
  after(100)
  pass('production', '\x17\x03\x03', { service: 'imap:993' })
  assert.equal(hints, ['somebody'])
  pass('users', '\x17\x03\x03', { service: 'imap:993', payload: Buffer.alloc(0), payloadBytes: 80 })
  pass('users', '\x17\x03\x03', { service: 'submission:465' })
  assert.equal(hints, ['somebody', 'somebody'], 'segments near to each other say the same')
})

test('a new connection from the same port knows nothing of the one before', () => {
  const { hints, pass } = bed()
  pass('users', 'MAIL FROM:<x@example.net>\r\nRCPT TO:<anna@example.test>\r\n')
  pass('users', '', { syn: true })
  pass('users', 'DATA\r\n')
  pass('production', '354 Go on\r\n250 Ok\r\n')
  assert.equal(hints, [])
})

test('ended, idle and all too many sessions are forgotten', () => {
  const { triggers, pass, after } = bed()
  pass('users', 'EHLO x\r\n')
  assert.is(triggers.flows, 1)
  pass('users', '', { fin: true })
  assert.is(triggers.flows, 0)
  for (let n = 0; n < 5_000; n += 1) pass('users', 'EHLO x\r\n', { client: `10.77.0.20:${n}` })
  assert.is(triggers.flows, 4_096)
  after(3_600_000)
  pass('users', 'EHLO x\r\n')
  assert.is(triggers.flows, 1)
})

test('lines without an end are not kept', () => {
  const { hints, pass } = bed()
  for (let n = 0; n < 100; n += 1) pass('users', 'x'.repeat(1_000))
  pass('users', '\r\nMAIL FROM:<x@example.net>\r\nRCPT TO:<anna@example.test>\r\nDATA\r\n')
  pass('production', '354 Go on\r\n250 Ok\r\n')
  assert.equal(hints, ['anna INBOX'])
})

test.run()
