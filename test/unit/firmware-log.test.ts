// Goal: one event is one JSON line whose time, level and name nobody can forge, whatever the fields hold.
// Method: hostile fields.
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { jsonLog, lineOf } from '../../firmware/log.ts'

const at = new Date('2026-01-02T03:04:05.678Z')
const test = suite('log')

test('an event is a line with its time, level, name and fields', () => {
  assert.equal(JSON.parse(lineOf(at, 'warn', 'journal.refused', { attempt: 2 })), {
    attempt: 2,
    at: '2026-01-02T03:04:05.678Z',
    level: 'warn',
    event: 'journal.refused',
  })
})

test('fields cannot pose as another event', () => {
  const line = lineOf(at, 'info', 'mail.accepted', { at: 'x', level: 'error', event: 'y' })
  const { level, event } = JSON.parse(line)
  assert.equal([level, event], ['info', 'mail.accepted'])
})

test('text with line breaks stays in its line', () => {
  const line = lineOf(at, 'info', 'mail.accepted', { subject: 'a\n{"level":"error"}\r\u2028' })
  assert.is(line.split('\n').length, 1)
})

test('an error is told by its message, a bigint as a number', () => {
  const fields = { error: new Error('no space'), modSeq: 12n, unset: undefined }
  const { error, modSeq, unset } = JSON.parse(lineOf(at, 'error', 'disk.refused', fields))
  assert.equal([error, modSeq, unset], ['no space', 12, undefined])
})

test('only a level that matters enough is written', () => {
  const lines: string[] = []
  const log = jsonLog(
    (line) => lines.push(line),
    () => at,
    'warn',
  )
  log('debug', 'a.seen')
  log('info', 'b.seen')
  log('warn', 'c.seen')
  log('error', 'd.seen')
  assert.equal(
    lines.map((line) => JSON.parse(line).event),
    ['c.seen', 'd.seen'],
  )
  assert.ok(lines.every((line) => line.endsWith('\n')))
})

test.run()
