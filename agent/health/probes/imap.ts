import { type Line, NotHeard } from './tcp.ts'

/** Production's IMAP server said no to a log-in: a matter of credentials or of its store, not of its being there. */
export class LoginRefused extends Error {
  override readonly name = 'LoginRefused'
}

/** One credential that may open other people's accounts, and the account that it opens here. */
export type Credential = {
  readonly user: string
  readonly password: string
  readonly method: 'authzid' | 'master-user'
  readonly account: string
}

export const IMAP_FAREWELL = 'z LOGOUT'

type Reply = { readonly status: string; readonly untagged: readonly string[] }

/** Greeting and capabilities (RFC 3501 §7.1, §6.1.1); under TLS where STARTTLS is the rule. @throws {NotHeard} */
export async function greetImap(line: Line, thorough: boolean): Promise<string> {
  const greeting = await line.next()
  if (!/^\* (OK|PREAUTH)\b/i.test(greeting)) throw new NotHeard('garbled', greeting)
  const { untagged } = await command(line, 'a1', 'CAPABILITY')
  if (!untagged.some((said) => /^\* CAPABILITY .*\bIMAP4rev[12]\b/i.test(said)))
    throw new NotHeard('garbled', `no IMAP4rev1 among the capabilities: ${untagged[0] ?? ''}`)
  if (thorough && line.endpoint.tls === 'starttls') await startTls(line)
  return greeting
}

/**
 * Logs in on behalf of an account and asks for its INBOX: the authentication service and the mail store take part.
 * @throws {LoginRefused | NotHeard}
 */
export async function logIn(line: Line, credential: Credential): Promise<void> {
  line.send('b1 AUTHENTICATE PLAIN')
  const invitation = await line.next()
  if (!invitation.startsWith('+'))
    throw new LoginRefused(invitation.replace(/^b1 /, '').slice(0, 200))
  const login = await command(line, 'b1', plain(credential), true)
  if (!login.status.startsWith('OK')) throw new LoginRefused(login.status)
  const inbox = await command(line, 'b2', 'STATUS INBOX (MESSAGES)')
  if (!inbox.status.startsWith('OK'))
    throw new LoginRefused(`logged in, but the mailbox cannot be opened: ${inbox.status}`)
}

/** The smallest question a logged-in session can ask (RFC 3501 §6.1.2). @throws {NotHeard} */
export async function noop(line: Line): Promise<void> {
  const { status } = await command(line, 'c1', 'NOOP')
  if (!status.startsWith('OK')) throw new NotHeard('garbled', status)
}

async function startTls(line: Line): Promise<void> {
  const { status } = await command(line, 'a2', 'STARTTLS')
  if (!status.startsWith('OK')) throw new NotHeard('garbled', `STARTTLS: ${status}`)
  await line.startTls()
}

/** SASL PLAIN (RFC 4616), or Dovecot's `account*admin` form of a master user's name. */
const plain = ({ user, password, method, account }: Credential): string => {
  const identity =
    method === 'authzid' ? `${account}\0${user}\0${password}` : `\0${account}*${user}\0${password}`
  return Buffer.from(identity).toString('base64')
}

async function command(line: Line, tag: string, text: string, bare = false): Promise<Reply> {
  line.send(bare ? text : `${tag} ${text}`)
  const untagged: string[] = []
  for (;;) {
    const said = await line.next()
    if (said.startsWith(`${tag} `))
      return { status: said.slice(tag.length + 1, tag.length + 200), untagged }
    untagged.push(said)
  }
}
