import { DOMAIN } from '../bed/plan.ts'
import { decodeMailbox } from '../mailbox-name.ts'

let written = 0

/** A Message-ID that no other item of this run has. */
export const newItem = (user: string): string => {
  written += 1
  return `<${written}.${user}.${process.pid}@users.${DOMAIN}>`
}

/** A short text, as most mail is. */
export const letter = (item: string, from: string, to: readonly string[], at: Date): string =>
  [
    `From: <${from}>`,
    `To: ${to.map((one) => `<${one}>`).join(', ')}`,
    `Subject: A word from ${from.split('@')[0]}`,
    `Date: ${at.toUTCString()}`,
    `Message-ID: ${item}`,
    'MIME-Version: 1.0',
    'Content-Type: text/plain; charset=us-ascii',
    '',
    `This is ${item}.`,
    '.A line that begins with a dot.',
    '',
  ].join('\r\n')

export const addressOf = (user: string): string => `${user}@${DOMAIN}`

/** Where a user files what is read: names on the wire. */
export const SHELVES = [
  'Archive',
  'Archive/2024',
  'Projects/Alpha/Beta',
  '&AMQ-rger &- Fr&APY-hlich',
]

export const shelfName = (wire: string): string => decodeMailbox(wire)
