// A person at a computer in the users' network: one JSON line a question on standard input, one a reply. Ends with it.
import { createInterface } from 'node:readline'
import { ImapClient, quoted } from './clients/imap.ts'
import { ConnectionLost, LineSocket, type Target } from './clients/line-socket.ts'
import { Pop3Client } from './clients/pop3.ts'
import { SmtpClient } from './clients/smtp.ts'
import { callsPasswordWrong, isRefusal } from './users/access.ts'
import type { Question, Visit, Visited } from './visitor.ts'

const PATIENCE_MS = 30_000
const conversations = new Map<string, LineSocket>()

type Session = { readonly certificate: string | undefined; close(): void }

async function visit(it: Visit): Promise<Visited> {
  let session: Session | undefined
  const opened = <S extends Session>(client: S): S => {
    session = client
    return client
  }
  try {
    const found = await doings[it.protocol](it, opened)
    const { certificate } = session ?? {}
    return { outcome: 'ok', found, ...(certificate === undefined ? {} : { certificate }) }
  } catch (error: unknown) {
    if (error instanceof ConnectionLost) return { outcome: 'lost', because: error.because }
    if (!isRefusal(error)) throw error
    const outcome = callsPasswordWrong(error) ? 'wrong-password' : 'refused'
    return { outcome, because: error.message }
  } finally {
    session?.close()
  }
}

type Opened = <S extends Session>(client: S) => S

/** What is done in a visit, a protocol each; the number of messages found, where that was asked. */
const doings = {
  imap: async (it: Visit, opened: Opened) => {
    const client = opened(await ImapClient.open(targetOf(it), PATIENCE_MS))
    if (it.tls === 'starttls') await client.startTls()
    await client.login(it.user, it.password)
    const { leave, find } = it
    if (leave !== undefined) await client.ok('APPEND INBOX', Buffer.from(letter(it.user, leave.id)))
    if (find === undefined) return 0
    await client.ok('EXAMINE INBOX')
    const [answer] = await client.ok(`UID SEARCH HEADER MESSAGE-ID ${quoted(find)}`)
    return answer?.text.match(/ \d+/g)?.length ?? 0
  },
  pop3: async (it: Visit, opened: Opened) => {
    const client = opened(await Pop3Client.open(targetOf(it), PATIENCE_MS))
    if (it.tls === 'starttls') await client.startTls()
    await client.login(it.user, it.password)
    return (await client.uidl()).length
  },
  smtp: async (it: Visit, opened: Opened) => {
    const client = opened(await SmtpClient.open(targetOf(it), PATIENCE_MS))
    if (it.tls === 'starttls') await client.startTls()
    await send(client, it, 'stranger@elsewhere.test')
    return 0
  },
  submission: async (it: Visit, opened: Opened) => {
    const client = opened(await SmtpClient.open(targetOf(it), PATIENCE_MS))
    if (it.tls === 'starttls') await client.startTls()
    await client.login(it.user, it.password)
    await send(client, it, `${it.user}@example.test`)
    return 0
  },
}

async function send(client: SmtpClient, { leave }: Visit, from: string): Promise<void> {
  if (leave !== undefined)
    await client.send(from, [`${leave.to}@example.test`], letter(leave.to, leave.id))
}

const letter = (to: string, id: string): string =>
  [
    'From: somebody@example.test',
    `To: ${to}@example.test`,
    'Subject: hello',
    `Message-ID: ${id}`,
    '',
    'Nothing new.',
    '',
  ].join('\r\n')

const targetOf = ({ host, port, tls, ca }: Visit): Target => ({
  host,
  port,
  tls: tls === 'implicit' ? 'implicit' : 'none',
  ca,
  servername: 'mail.example.test',
})

/** Goes on with the conversation of that name, or begins it; answers what was heard. */
async function say(name: string, host: string, port: number, line: string): Promise<string> {
  try {
    let talk = conversations.get(name)
    if (talk === undefined) {
      talk = await LineSocket.open({ host, port }, PATIENCE_MS)
      conversations.set(name, talk)
      await talk.readLine(PATIENCE_MS)
    }
    talk.write(`${line}\r\n`)
    return await talk.readLine(PATIENCE_MS)
  } catch (error: unknown) {
    if (error instanceof ConnectionLost) return error.because
    throw error
  }
}

const answerTo = (question: Question): Promise<unknown> =>
  question.do === 'visit'
    ? visit(question.visit)
    : say(question.name, question.host, question.port, question.line)

const under: Promise<void>[] = []
for await (const text of createInterface({ input: process.stdin })) {
  const { id, question } = JSON.parse(text) as { id: number; question: Question }
  const replied = async () => {
    const answer = await answerTo(question)
    process.stdout.write(`${JSON.stringify({ id, answer })}\n`)
  }
  under.push(replied())
}
await Promise.all(under)
for (const talk of conversations.values()) talk.close()
