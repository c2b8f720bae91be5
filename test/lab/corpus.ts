import { pick, random, whole } from '../fakes/random.ts'
import type { Account } from './bed/accounts.ts'
import { DOMAIN } from './bed/plan.ts'
import { askWorker } from './bed/tools.ts'

/** One message of an account. `gone`: it is expunged again, so that the UIDs have a gap. */
export type CorpusMessage = {
  readonly folder: string
  readonly flags: readonly string[]
  readonly internalDate: string
  readonly content: Buffer
  readonly gone: boolean
}

export type CorpusPlan = {
  readonly accounts: readonly Account[]
  /** Messages an account, those that stay. */
  readonly messages: number
  readonly seed: number
}

/** Every account's folders: special-use ones, nested ones, names beyond ASCII, and one with the `&` of modified UTF-7. */
export const FOLDERS = [
  'Drafts',
  'Sent',
  'Trash',
  'Junk',
  'Archive',
  'Archive/2023',
  'Archive/2024',
  'Projects/Alpha/Beta',
  'Ärger & Fröhlich',
  '日本語/会議',
] as const
/** Subscribed although no such folder exists, as clients leave behind. */
export const GHOST = 'Once upon a time'
const NOT_SUBSCRIBED = 'Junk'
export const SUBSCRIPTIONS: readonly string[] = [
  'INBOX',
  ...FOLDERS.filter((folder) => folder !== NOT_SUBSCRIBED),
  GHOST,
]

const FLAGS: readonly (readonly string[])[] = [
  [],
  ['\\Seen'],
  ['\\Seen'],
  ['\\Seen', '\\Answered'],
  ['\\Flagged'],
  ['\\Seen', '$Label1'],
  ['\\Seen', 'NonJunk', '$Forwarded'],
  ['\\Seen', 'Projekt-X'],
  ['\\Deleted'],
]

const FIRST_DATE_S = 1_700_000_000
const GONE_SHARE = 0.06
const ATTACHMENT_BYTES = 9_000

/** Loads the corpus of every account into the production of a bed. @throws {CommandFailed} */
export async function loadCorpus(namespace: string, plan: CorpusPlan): Promise<void> {
  if (plan.messages > 0) await askWorker(namespace, 'corpus-worker.ts', plan)
}

/** An account's messages in the order in which they arrived: decided by the seed and the user's name alone. */
export function* messagesOf(user: string, count: number, seed: number): Generator<CorpusMessage> {
  const draw = random(seed ^ hashOf(user))
  let stay = 0
  let previous: Buffer | undefined
  for (let index = 0; stay < count; index += 1) {
    const folder = draw() < 0.5 ? 'INBOX' : pick(draw, FOLDERS)
    const gone = draw() < GONE_SHARE
    // The same message twice, Message-ID and all, as mailing lists and careless clients leave it.
    const again = previous !== undefined && draw() < 0.02
    const content = again && previous !== undefined ? previous : message(draw, user, index)
    previous = content
    const internalDate = imapDate(new Date((FIRST_DATE_S + index * 3_600) * 1_000))
    yield { folder, flags: pick(draw, FLAGS), internalDate, content, gone }
    if (!gone) stay += 1
  }
  // The newest one goes too, so that UIDNEXT says more than the greatest UID.
  const content = message(draw, user, -1)
  const internalDate = imapDate(new Date(FIRST_DATE_S * 1_000))
  yield { folder: 'INBOX', flags: [], internalDate, content, gone: true }
}

/** Median 6 KB, from 1.5 KB to 500 KB (log-normal). */
const sizeOf = (draw: () => number): number => {
  const normal = Math.sqrt(-2 * Math.log(1 - draw())) * Math.cos(2 * Math.PI * draw())
  return Math.round(Math.min(500_000, Math.max(1_500, 6_000 * Math.exp(1.2 * normal))))
}

function message(draw: () => number, user: string, index: number): Buffer {
  const size = sizeOf(draw)
  const sender = `sender${whole(draw, 1, 50)}`
  const date = new Date((FIRST_DATE_S + index * 3_600) * 1_000).toUTCString()
  const id = `${user}.${index}.${Math.floor(draw() * 2 ** 32).toString(36)}@corpus.${DOMAIN}`
  const head = [
    `Return-Path: <${sender}@elsewhere.test>`,
    `Received: from mx.elsewhere.test (mx.elsewhere.test [192.0.2.${whole(draw, 1, 250)}])`,
    `\tby mail.${DOMAIN} with ESMTPS id ${index}; ${date}`,
    `From: "${sender}" <${sender}@elsewhere.test>`,
    `To: ${user}@${DOMAIN}`,
    `Subject: ${pick(draw, SUBJECTS)} ${index}`,
    `Date: ${date}`,
    ...(draw() < 0.03 ? [] : [`Message-ID: <${id}>`]),
    'MIME-Version: 1.0',
  ]
  const lines = size > ATTACHMENT_BYTES ? withAttachment(draw, size) : plainText(draw, size)
  return Buffer.from([...head, ...lines, ''].join('\r\n'), 'utf8')
}

const SUBJECTS = [
  'Hello',
  'Re: budget',
  '=?utf-8?B?w4RyZ2Vy?=',
  'Fwd: minutes',
  'Invoice',
  'Lunch?',
]

function plainText(draw: () => number, size: number): string[] {
  const kind = draw()
  const head = [
    'Content-Type: text/plain; charset=utf-8',
    `Content-Transfer-Encoding: ${kind < 0.5 ? '8bit' : '7bit'}`,
    '',
  ]
  const text = prose(draw, size, kind < 0.5 ? EIGHT_BIT : SEVEN_BIT)
  // A line far beyond RFC 5322's 998 characters, as some web mailers write a paragraph.
  return [...head, ...(kind > 0.95 ? [text.join(' ')] : text)]
}

function withAttachment(draw: () => number, size: number): string[] {
  const mark = `part-${Math.floor(draw() * 2 ** 32).toString(36)}`
  const bytes = Buffer.alloc(Math.floor((size - 1_500) * 0.73))
  for (let at = 0; at + 4 <= bytes.length; at += 4) bytes.writeUInt32LE(draw() * 2 ** 32, at)
  return [
    `Content-Type: multipart/mixed; boundary="${mark}"`,
    '',
    `--${mark}`,
    'Content-Type: text/plain; charset=utf-8',
    'Content-Transfer-Encoding: 8bit',
    '',
    ...prose(draw, 1_000, EIGHT_BIT),
    `--${mark}`,
    'Content-Type: application/octet-stream; name="report.bin"',
    'Content-Transfer-Encoding: base64',
    'Content-Disposition: attachment; filename="report.bin"',
    '',
    ...(bytes.toString('base64').match(/.{1,76}/g) ?? []),
    `--${mark}--`,
  ]
}

const SEVEN_BIT = 'the mail of the day came late and nobody knew why it had been so slow'.split(' ')
const EIGHT_BIT =
  'über die Straße weht ein müder Wind – 東京 に ありがとう ça déjà vu от души'.split(' ')

function prose(draw: () => number, size: number, words: readonly string[]): string[] {
  const lines: string[] = []
  for (let written = 0; written < size; ) {
    let line = ''
    while (line.length < 66) line += `${pick(draw, words)} `
    lines.push(line.trimEnd())
    written += line.length
  }
  return lines
}

const MONTHS = 'Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec'.split(' ')

/** A date-time of IMAP (RFC 9051 §9), in UTC. */
export const imapDate = (date: Date): string => {
  const day = String(date.getUTCDate()).padStart(2, '0')
  const time = date.toISOString().slice(11, 19)
  return `${day}-${MONTHS[date.getUTCMonth()]}-${date.getUTCFullYear()} ${time} +0000`
}

const hashOf = (text: string): number => {
  let hash = 2_166_136_261
  for (const byte of Buffer.from(text)) hash = Math.imul(hash ^ byte, 16_777_619)
  return hash >>> 0
}
