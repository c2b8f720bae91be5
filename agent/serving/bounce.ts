import { Readable } from 'node:stream'
import type { Envelope } from './queue.ts'

/** A recipient who will not get the message, and the words of the server that refused it. */
export type Failure = { readonly address: string; readonly because: string }

const HEADER_BYTES_MAX = 16_384

/** The header of a message, as far as `HEADER_BYTES_MAX`; the stream is ended. */
export async function headerOf(message: Readable): Promise<string> {
  let text = ''
  for await (const chunk of message) {
    text += (chunk as Buffer).toString('latin1')
    const end = text.indexOf('\r\n\r\n')
    if (end >= 0) return text.slice(0, end + 2)
    if (text.length > HEADER_BYTES_MAX) break
  }
  return text.slice(0, HEADER_BYTES_MAX)
}

/** A date as RFC 5322 §3.3 writes it. */
export const mailDate = (date: Date): string => date.toUTCString().replace('GMT', '+0000')

const oneLine = (text: string): string => text.replaceAll(/[^\x20-\x7e]+/g, ' ').slice(0, 900)

/** A report of failed delivery (RFC 3461, RFC 3464, RFC 6522) to the sender of a message. */
export function bounceText(options: {
  readonly envelope: Envelope
  readonly failures: readonly Failure[]
  readonly header: string
  readonly hostname: string
  readonly date: Date
}): string {
  const { envelope, failures, header, hostname, date } = options
  const boundary = `=_${envelope.id}`
  const status = (because: string) => /\b[45]\.\d{1,3}\.\d{1,3}\b/.exec(because)?.[0] ?? '5.0.0'
  const part = (type: string, ...lines: readonly string[]) => [
    `--${boundary}`,
    `Content-Type: ${type}`,
    '',
    ...lines,
    '',
  ]
  return [
    `Date: ${mailDate(date)}`,
    `From: Mail Delivery System <MAILER-DAEMON@${hostname}>`,
    `To: <${envelope.from}>`,
    'Subject: Undelivered Mail Returned to Sender',
    `Message-ID: <${envelope.id}.bounce@${hostname}>`,
    'Auto-Submitted: auto-replied',
    'MIME-Version: 1.0',
    `Content-Type: multipart/report; report-type=delivery-status; boundary="${boundary}"`,
    '',
    ...part(
      'text/plain; charset=us-ascii',
      'Your message could not be delivered to:',
      '',
      ...failures.map(({ address, because }) => `  <${oneLine(address)}>: ${oneLine(because)}`),
    ),
    ...part(
      'message/delivery-status',
      `Reporting-MTA: dns; ${hostname}`,
      `Arrival-Date: ${mailDate(new Date(envelope.acceptedAt))}`,
      ...failures.flatMap(({ address, because }) => [
        '',
        `Final-Recipient: rfc822; ${oneLine(address)}`,
        'Action: failed',
        `Status: ${status(because)}`,
        `Diagnostic-Code: smtp; ${oneLine(because)}`,
      ]),
    ),
    ...part('text/rfc822-headers', header.trimEnd()),
    `--${boundary}--`,
    '',
  ].join('\r\n')
}

/** The same text as the stream that the queue takes; `latin1` keeps the octets of the quoted header. */
export const bounceStream = (text: string): Readable => Readable.from([Buffer.from(text, 'latin1')])
