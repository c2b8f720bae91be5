// Goal: what servers write is read as they mean it.
// Method: lines as Dovecot, Cyrus and RFC 9051 write them.
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import {
  flagsIn,
  identityOf,
  itemOf,
  mailboxName,
  quotedMailbox,
  secondsOf,
  tokensOf,
  uidsOf,
} from '../../agent/replica/mail/backsync-text.ts'

const test = suite('the text of IMAP')
const line = (text: string, ...literals: string[]) => ({
  text,
  literals: literals.map((literal) => Buffer.from(literal)),
})

test('mailbox names survive modified UTF-7 and quoting', () => {
  for (const name of ['Ärger & Fröhlich', '日本語/会議', 'a"b\\c', 'plain', '&'])
    assert.is(mailboxName(String(tokensOf(line(`* ${quotedMailbox(name)}`))[0])), name)
  assert.is(quotedMailbox('Entwürfe'), '"Entw&APw-rfe"')
  assert.is(mailboxName('inbox'), 'INBOX')
})

test('lists, strings, literals and NIL are told apart', () => {
  assert.equal(tokensOf(line('* LIST (\\HasNoChildren \\Sent) "/" Sent')), [
    'LIST',
    ['\\HasNoChildren', '\\Sent'],
    '/',
    'Sent',
  ])
  assert.equal(tokensOf(line('* LIST () NIL {5}', 'a "b"')), ['LIST', [], null, 'a "b"'])
  const status = tokensOf(line('* STATUS "a b" (UIDNEXT 5 HIGHESTMODSEQ 12)'))
  const items = status[2]
  assert.is(Array.isArray(items) ? itemOf(items, 'HIGHESTMODSEQ') : undefined, '12')
})

test('UID and flags are found in any order, without \\Recent', () => {
  const dovecot = line('* 3 FETCH (UID 7 FLAGS (\\Seen \\Recent $a))')
  const cyrus = line('* 3 FETCH (FLAGS ($a \\Seen) MODSEQ (12) UID 7)')
  assert.equal(flagsIn(dovecot), [7, ['$a', '\\Seen']])
  assert.equal(flagsIn(cyrus), [7, ['$a', '\\Seen']])
  assert.is(flagsIn(line('* 5 EXISTS')), undefined)
})

test('UID sets are read in their order', () => {
  assert.equal(uidsOf('3:5,9'), [3, 4, 5, 9])
  assert.equal(uidsOf(''), [])
})

test('INTERNALDATE is a moment, however it is written', () => {
  assert.is(secondsOf('17-Jul-1996 02:44:25 -0700'), 837_596_665)
  assert.is(secondsOf(' 7-Jul-1996 09:44:25 +0000'), secondsOf('07-Jul-1996 11:44:25 +0200'))
})

test('a letter is the same by Message-ID and body, whatever way it came', () => {
  const date = '01-Jan-2024 00:00:00 +0000'
  const of = (text: string) => identityOf(date, Buffer.from(text))
  const one = of('Received: a\r\nMessage-ID:\r\n <x@y>\r\n\r\nbody\r\n')
  const other = of('Message-ID: <x@y>\nReceived: b\n\nbody')
  assert.is(one.letter, other.letter)
  assert.is.not(one.exact, other.exact)
  assert.is.not(one.letter, of('Message-ID: <x@y>\r\n\r\nanother\r\n').letter)
  const nameless = of('Subject: a\r\n\r\nbody\r\n')
  assert.is(nameless.letter, nameless.exact)
})

test.run()
