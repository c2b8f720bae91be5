// Reads every account through IMAP from inside a namespace and says what is there; changes nothing (EXAMINE, PEEK).
import { createHash } from 'node:crypto'
import type { Account } from './bed/accounts.ts'
import { ImapClient, ImapRefused, type ImapResponse, quoted } from './clients/imap.ts'
import { ConnectionLost } from './clients/line-socket.ts'
import type { AccountDigest, DigestRequest, FolderDigest, MessageDigest } from './digest.ts'
import { decodeMailbox } from './mailbox-name.ts'
import { inParallel, workerInput } from './worker-input.ts'

const AT_A_TIME = 4
const HEADER_BYTES_MAX = 65_536

const { accounts, host, port } = await workerInput<DigestRequest>()
const digests = await inParallel(accounts, AT_A_TIME, digestOrReason)
const named = accounts.map(({ user }, index) => [user, digests[index]])
process.stdout.write(JSON.stringify(Object.fromEntries(named)))

/** An account that is refused (the replica is not complete yet, say) is a finding, not the end of the inquiry. */
async function digestOrReason(account: Account): Promise<AccountDigest> {
  try {
    return await digestOf(account)
  } catch (error: unknown) {
    if (!(error instanceof ImapRefused || error instanceof ConnectionLost)) throw error
    return { folders: {}, subscriptions: [], unreadable: error.message }
  }
}

async function digestOf({ user, password }: Account): Promise<AccountDigest> {
  const client = await ImapClient.open({ host, port })
  try {
    await client.login(user, password)
    const folders: Record<string, FolderDigest> = {}
    for (const name of listed(await client.ok('LIST "" "*"')))
      folders[decodeMailbox(name)] = await folderDigest(client, name)
    const subscriptions = listed(await client.ok('LSUB "" "*"'))
      .map(decodeMailbox)
      .sort()
    await client.logout()
    return { folders, subscriptions }
  } finally {
    client.close()
  }
}

/** The mailboxes of LIST or LSUB answers that can be opened, with `/` between the levels. */
function listed(responses: readonly ImapResponse[]): string[] {
  return responses.flatMap(({ text, literals }) => {
    const parts = /^\* (?:LIST|LSUB) \(([^)]*)\) (NIL|"(?:\\.|[^"])*") (.*)$/.exec(text)
    if (parts === null) return []
    const [, attributes = '', separator = '', name = ''] = parts
    if (/\\Noselect|\\NonExistent/i.test(attributes) && text.startsWith('* LIST')) return []
    const between = separator.slice(1, -1).replace(/^\\/, '')
    const plain = literals[0]?.toString('latin1') ?? unquoted(name)
    return [between === '' ? plain : plain.replaceAll(between, '/')]
  })
}

async function folderDigest(client: ImapClient, name: string): Promise<FolderDigest> {
  const opened = await client.ok(`EXAMINE ${quoted(name)}`)
  const messages: Record<number, MessageDigest> = {}
  if (numberIn(opened, / (\d+) EXISTS/) > 0) {
    const fetched = await client.ok('UID FETCH 1:* (UID FLAGS INTERNALDATE BODY.PEEK[])')
    for (const response of fetched) {
      const uid = /\bUID (\d+)/.exec(response.text)?.[1]
      if (uid !== undefined) messages[Number(uid)] = messageDigest(response)
    }
  }
  return {
    uidValidity: numberIn(opened, /\[UIDVALIDITY (\d+)\]/),
    uidNext: numberIn(opened, /\[UIDNEXT (\d+)\]/),
    messages,
  }
}

function messageDigest({ text, literals }: ImapResponse): MessageDigest {
  const body = literals[0] ?? Buffer.alloc(0)
  const flags = /FLAGS \(([^)]*)\)/.exec(text)?.[1]?.split(' ') ?? []
  const id = /^message-id:\s*(<[^>]*>)/im.exec(body.toString('latin1', 0, HEADER_BYTES_MAX))?.[1]
  return {
    flags: flags.filter((flag) => flag !== '' && flag !== '\\Recent').sort(),
    internalDate: /INTERNALDATE "([^"]*)"/.exec(text)?.[1] ?? '',
    sha256: createHash('sha256').update(body).digest('hex'),
    bytes: body.length,
    ...(id === undefined ? {} : { messageId: id }),
  }
}

function numberIn(responses: readonly ImapResponse[], pattern: RegExp): number {
  for (const { text } of responses) {
    const found = pattern.exec(text)?.[1]
    if (found !== undefined) return Number(found)
  }
  return 0
}

function unquoted(text: string): string {
  return text.startsWith('"') ? text.slice(1, -1).replace(/\\(.)/g, '$1') : text
}
