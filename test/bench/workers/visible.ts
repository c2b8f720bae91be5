// Tells when new mail becomes visible in an INBOX: one line of monotonic milliseconds for each message that is added.
// The plan is its argument; the end of its input ends it.
import { setTimeout as delay } from 'node:timers/promises'
import { ImapClient } from '../../lab/clients/imap.ts'
import { ConnectionLost } from '../../lab/clients/line-socket.ts'
import { monotonicMs } from '../clock.ts'

/** Short against what is measured, long enough to leave the processor to those who are watched. */
const POLL_MS = 3

const { host, port, user, password } = JSON.parse(process.argv[2] ?? '') as {
  host: string
  port: number
  user: string
  password: string
}
process.stdin.on('data', () => {}).once('end', () => process.exit())

const existing = (responses: readonly { text: string }[]): number | undefined => {
  const counts = responses.flatMap(({ text }) => /^\* (\d+) EXISTS/.exec(text)?.[1] ?? [])
  return counts.length === 0 ? undefined : Number(counts.at(-1))
}

try {
  const client = await ImapClient.open({ host, port })
  await client.login(user, password)
  let seen = existing(await client.ok('SELECT INBOX')) ?? 0
  process.stdout.write('ready\n')
  for (;;) {
    const now = existing(await client.ok('NOOP')) ?? seen
    for (; seen < now; seen += 1) process.stdout.write(`${monotonicMs()}\n`)
    await delay(POLL_MS)
  }
} catch (error: unknown) {
  if (!(error instanceof ConnectionLost)) throw error
  process.exitCode = 1
}
