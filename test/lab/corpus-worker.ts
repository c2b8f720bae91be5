// Loads the corpus from inside production's namespace: one connection an account, everything pipelined.
import type { Account } from './bed/accounts.ts'
import { PORTS } from './bed/plan.ts'
import { type Completion, ImapClient, quoted } from './clients/imap.ts'
import { type CorpusPlan, FOLDERS, GHOST, messagesOf, SUBSCRIPTIONS } from './corpus.ts'
import { encodeMailbox } from './mailbox-name.ts'
import { inParallel, workerInput } from './worker-input.ts'

const AT_A_TIME = 4
const BATCH_MESSAGES = 50
const ALREADY = '[ALREADYEXISTS]'

const { accounts, messages, seed } = await workerInput<CorpusPlan>()
await inParallel(accounts, AT_A_TIME, load)

async function load({ user, password }: Account): Promise<void> {
  const client = await ImapClient.open({ host: '127.0.0.1', port: PORTS.imap })
  try {
    await client.login(user, password)
    const each = (verb: string, folders: readonly string[]) =>
      folders.map((folder) => ({ command: `${verb} ${wire(folder)}` }))
    const [create, subscribe] = [
      each('CREATE', [...FOLDERS, GHOST]),
      each('SUBSCRIBE', SUBSCRIPTIONS),
    ]
    expectOk(await client.pipeline([...create, ...subscribe, ...each('DELETE', [GHOST])]))
    const gone = await append(client, user)
    for (const [folder, uids] of gone) await expunge(client, folder, uids)
    await client.logout()
  } finally {
    client.close()
  }
}

/** Appends everything; answers, for each folder, the UIDs of what shall not stay. */
async function append(client: ImapClient, user: string): Promise<Map<string, string[]>> {
  const gone = new Map<string, string[]>()
  const corpus = [...messagesOf(user, messages, seed)]
  for (let start = 0; start < corpus.length; start += BATCH_MESSAGES) {
    const batch = corpus.slice(start, start + BATCH_MESSAGES)
    const completions = await client.pipeline(
      batch.map(({ folder, flags, internalDate, content }) => ({
        command: `APPEND ${wire(folder)} (${flags.join(' ')}) "${internalDate}"`,
        literal: content,
      })),
    )
    expectOk(completions)
    for (const [index, message] of batch.entries()) {
      const uid = /\[APPENDUID \d+ (\d+)\]/.exec(completions[index]?.text ?? '')?.[1]
      if (!message.gone || uid === undefined) continue
      gone.set(message.folder, [...(gone.get(message.folder) ?? []), uid])
    }
  }
  return gone
}

async function expunge(client: ImapClient, folder: string, uids: readonly string[]): Promise<void> {
  await client.ok(`SELECT ${wire(folder)}`)
  await client.ok(`UID STORE ${uids.join(',')} +FLAGS.SILENT (\\Deleted)`)
  await client.ok(`UID EXPUNGE ${uids.join(',')}`)
}

function expectOk(completions: readonly Completion[]): void {
  const refused = completions.find(
    ({ status, text }) => status !== 'OK' && !text.startsWith(ALREADY),
  )
  if (refused !== undefined) throw new Error(`production refuses the corpus: ${refused.text}`)
}

function wire(folder: string): string {
  return quoted(encodeMailbox(folder))
}
