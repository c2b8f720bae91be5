import { PORTS, PRODUCTION, USERS } from '../bed/plan.ts'
import { ImapClient, ImapRefused } from '../clients/imap.ts'
import { ConnectionLost, NotConnected, type Target } from '../clients/line-socket.ts'
import { Pop3Client, Pop3Refused } from '../clients/pop3.ts'
import { SmtpClient, SmtpRefused } from '../clients/smtp.ts'
import { nowMs, type Write } from './records.ts'

export type Person = {
  readonly user: string
  readonly password: string
  readonly ca: string
  readonly draw: () => number
  readonly write: Write
}

/** Longer than any wait at the door, shorter than a person's. */
const PATIENCE_MS = 25_000
const SERVERNAME = 'mail.example.test'

type Door = { readonly service: string; readonly port: number; readonly tls: 'implicit' | 'none' }
type Connection = {
  startTls(): Promise<void>
  readonly certificate: string | undefined
  close(): void
}

const IMAP: readonly Door[] = [
  { service: 'imap', port: PORTS.imap, tls: 'none' },
  { service: 'imaps', port: PORTS.imaps, tls: 'implicit' },
]
const POP3: readonly Door[] = [
  { service: 'pop3', port: PORTS.pop3, tls: 'none' },
  { service: 'pop3s', port: PORTS.pop3s, tls: 'implicit' },
]
const SUBMISSION: readonly Door[] = [
  { service: 'submission', port: PORTS.submission, tls: 'none' },
  { service: 'submissions', port: PORTS.submissions, tls: 'implicit' },
]
const SMTP: readonly Door[] = [{ service: 'smtp', port: PORTS.smtp, tls: 'none' }]

/** A session as a client opens it: TLS by whichever way, certificate checked, logged in. `undefined`: recorded why not. */
export const openImap = (person: Person): Promise<ImapClient | undefined> =>
  open(person, IMAP, ImapClient.open, (client) => client.login(person.user, person.password))

export const openPop3 = (person: Person): Promise<Pop3Client | undefined> =>
  open(person, POP3, Pop3Client.open, (client) => client.login(person.user, person.password))

export const openSubmission = (person: Person): Promise<SmtpClient | undefined> =>
  open(person, SUBMISSION, SmtpClient.open, (client) => client.login(person.user, person.password))

/** As another mail server connects: without a login. */
export const openSmtp = (person: Person): Promise<SmtpClient | undefined> =>
  open(person, SMTP, SmtpClient.open, () => Promise.resolve())

async function open<C extends Connection>(
  person: Person,
  doors: readonly Door[],
  connect: (target: Target, patienceMs: number) => Promise<C>,
  login: (client: C) => Promise<void>,
): Promise<C | undefined> {
  const { user, draw, write } = person
  const door = doors[Math.floor(draw() * doors.length)] ?? doors[0]
  if (door === undefined) return undefined
  const { service } = door
  const startedMs = nowMs()
  let client: C | undefined
  try {
    client = await connect(targetOf(person, door), PATIENCE_MS)
    if (door.tls === 'none') await client.startTls()
    await login(client)
    const { certificate } = client
    const seen = certificate === undefined ? {} : { certificate }
    write({ kind: 'connect', user, service, startedMs, endedMs: nowMs(), outcome: 'ok', ...seen })
    return client
  } catch (error: unknown) {
    client?.close()
    const endedMs = nowMs()
    const tried = { kind: 'connect', user, service, startedMs, endedMs } as const
    if (error instanceof ConnectionLost) {
      const outcome = error instanceof NotConnected ? 'not-connected' : 'lost'
      write({ ...tried, outcome, because: error.because })
    } else if (isRefusal(error)) {
      write({ ...tried, outcome: 'refused', because: error.message })
      if (callsPasswordWrong(error))
        write({ kind: 'false-auth', user, service, atMs: endedMs, text: error.message })
    } else throw error
    return undefined
  }
}

/** Half of all connections by IPv6, the others from one of two IPv4 addresses. */
function targetOf({ ca, draw }: Person, { port, tls }: Door): Target {
  const localAddress = USERS.ipv4[Math.floor(draw() * USERS.ipv4.length)]
  const common = { port, tls, ca, servername: SERVERNAME }
  if (draw() < 0.5) return { ...common, host: PRODUCTION.ipv6 }
  return {
    ...common,
    host: PRODUCTION.ipv4,
    ...(localAddress === undefined ? {} : { localAddress }),
  }
}

type Refusal = ImapRefused | SmtpRefused | Pop3Refused

/** Whether a server said no, and not the network. */
export const isRefusal = (error: unknown): error is Refusal =>
  error instanceof ImapRefused || error instanceof SmtpRefused || error instanceof Pop3Refused

/** Whether the refusal says that the password is wrong. */
export const callsPasswordWrong = (error: Refusal): boolean =>
  error instanceof SmtpRefused ? error.code === 535 : error.authentication
