import type { ImapFlow } from 'imapflow'
import { decodePath } from 'imapflow/lib/tools.js'
import type { Doveadm, DoveadmCommand } from './doveadm.ts'
import type { FolderStatus } from './plan.ts'

/** A message as both servers describe it, in a form that can be compared with `===`. */
export type MessageRow = {
  readonly uid: number
  /** Sorted, joined by spaces, without `\Recent`. */
  readonly flags: string
  /** INTERNALDATE, seconds since 1970. */
  readonly dateS: number
  /** RFC822.SIZE. */
  readonly size: number
}

/** How many messages are asked for at once: bounds memory, not the size of a folder. */
export const ROWS_AT_ONCE = 5_000

const STATUS_ITEMS = {
  messages: true,
  uidNext: true,
  uidValidity: true,
  unseen: true,
  highestModseq: true,
}

/** Flags in the ledger's form. */
export const flagText = (flags: Iterable<string>): string =>
  [...flags]
    .filter((flag) => flag !== '\\Recent')
    .sort()
    .join(' ')

/** The user's own folders at production, by one LIST-STATUS (RFC 5819) where production knows it. */
export async function productionFolders(client: ImapFlow): Promise<FolderStatus[]> {
  const foreign = [...(client.namespaces?.other || []), ...(client.namespaces?.shared || [])]
    .map(({ prefix }) => prefix)
    .filter((prefix) => prefix !== '')
  const listed = await client.list({ statusQuery: STATUS_ITEMS })
  return listed
    .filter(
      ({ path, flags }) => !flags.has('\\Noselect') && !foreign.some((p) => path.startsWith(p)),
    )
    .map(({ path, status, specialUse, specialUseSource, subscribed }) => ({
      path,
      uidValidity: Number(status?.uidValidity ?? 0),
      uidNext: status?.uidNext ?? 0,
      messages: status?.messages ?? 0,
      unseen: status?.unseen ?? 0,
      highestModSeq: status?.highestModseq ?? 0n,
      ...(specialUse !== undefined && specialUseSource === 'extension' ? { specialUse } : {}),
      // ImapFlow says of every INBOX that it is subscribed.
      ...(path === 'INBOX' ? {} : { subscribed: subscribed === true }),
    }))
}

/**
 * Subscribed names, sorted; among them, unlike in ImapFlow's own lists, names without a folder. To be called after
 * another command of the same use of the connection: it does not end an IDLE by itself.
 */
export async function productionSubscriptions(client: ImapFlow): Promise<string[]> {
  if (!canExecute(client)) throw new TypeError('this ImapFlow cannot send LSUB')
  const paths: string[] = []
  const answer = await client.exec('LSUB', ['', '*'], {
    untagged: {
      LSUB: (line) => {
        const name = line.attributes?.[2]?.value
        if (name !== undefined && name !== null) paths.push(decodePath(client, String(name)))
        return Promise.resolve()
      },
    },
  })
  answer.next()
  return paths.map((path) => (path.toUpperCase() === 'INBOX' ? 'INBOX' : path)).sort()
}

/** The part of ImapFlow below its commands: it is there in every release, but left out of its declarations. */
type Executor = {
  exec(
    command: string,
    attributes: readonly string[],
    options: { readonly untagged: Readonly<Record<string, (line: Line) => Promise<void>>> },
  ): Promise<{ next(): void }>
}
type Line = { readonly attributes?: readonly { readonly value?: unknown }[] }

const canExecute = (client: ImapFlow): client is ImapFlow & Executor =>
  'exec' in client && typeof client.exec === 'function'

/**
 * Messages `first` to `last` of the selected folder, by sequence number. Stable while nothing but FETCH is asked: a
 * server tells of no EXPUNGE meanwhile (RFC 3501 §7.4.1).
 */
export async function productionRows(
  client: ImapFlow,
  first: number,
  last: number,
): Promise<MessageRow[]> {
  const messages = await client.fetchAll(`${first}:${last}`, {
    uid: true,
    flags: true,
    internalDate: true,
    size: true,
  })
  return messages
    .map(({ uid, flags, internalDate, size }) => ({
      uid,
      flags: flagText(flags ?? []),
      dateS: Math.floor(new Date(internalDate ?? 0).getTime() / 1000),
      size: size ?? 0,
    }))
    .sort((a, b) => a.uid - b.uid)
}

/** Sequence ranges that cover so many messages, each small enough to be held in memory. */
export function* ranges(messages: number): Generator<readonly [first: number, last: number]> {
  for (let first = 1; first <= messages; first += ROWS_AT_ONCE)
    yield [first, Math.min(messages, first + ROWS_AT_ONCE - 1)]
}

/** What the replica holds of an account, without its messages and special uses. */
export type ReplicaLook = {
  readonly folders: readonly FolderStatus[]
  /** Sorted; names without a folder among them. */
  readonly subscriptions: readonly string[]
}

/** Commands whose results `replicaLookOf` understands, to be run in the same request as others. */
export const lookCommands = (user: string): readonly DoveadmCommand[] => [
  [
    'mailboxStatus',
    {
      user,
      field: ['messages', 'unseen', 'uidnext', 'uidvalidity', 'highestmodseq'],
      mailboxMask: ['*'],
    },
  ],
  ['mailboxList', { user, subscriptions: true }],
]

export function replicaLookOf([status, subscribed]: readonly unknown[]): ReplicaLook {
  const folders = tableOf(status).map((row) => ({
    path: String(row['mailbox']),
    uidValidity: Number(row['uidvalidity']),
    uidNext: Number(row['uidnext']),
    messages: Number(row['messages']),
    unseen: Number(row['unseen']),
    highestModSeq: BigInt(String(row['highestmodseq'])),
  }))
  const subscriptions = tableOf(subscribed).map((row) => String(row['mailbox']))
  return { folders, subscriptions: subscriptions.sort() }
}

/** @throws {PeerUnreachable} {DoveadmRefused} */
export const lookAtReplica = async (doveadm: Doveadm, user: string): Promise<ReplicaLook> =>
  replicaLookOf(await doveadm.batch(lookCommands(user)))

/** The folders of an account in the replica. @throws {PeerUnreachable} {DoveadmRefused} */
export const replicaFolders = async (
  doveadm: Doveadm,
  user: string,
): Promise<readonly FolderStatus[]> => (await lookAtReplica(doveadm, user)).folders

/** Messages of one folder; `query` as in doveadm-search-query(7). */
export type RowQuery = { readonly path: string; readonly query: readonly string[] }

/** Messages of folders of the replica, one list a query, in the order of UIDs. @throws {PeerUnreachable} {DoveadmRefused} */
export async function replicaRows(
  doveadm: Doveadm,
  user: string,
  queries: readonly RowQuery[],
): Promise<MessageRow[][]> {
  const field = ['uid', 'flags', 'date.received.unixtime', 'size.virtual']
  const answers = await doveadm.batch(
    queries.map(({ path, query }) => [
      'fetch',
      { user, field, query: ['mailbox', path, ...query] },
    ]),
  )
  return answers.map((answer) =>
    tableOf(answer).map((row) => ({
      uid: Number(row['uid']),
      flags: flagText(String(row['flags']).split(' ').filter(Boolean)),
      dateS: Number(row['date.received.unixtime']),
      size: Number(row['size.virtual']),
    })),
  )
}

/** Special uses in the replica of those folders that have one at production. @throws {PeerUnreachable} {DoveadmRefused} */
export async function replicaSpecialUses(
  doveadm: Doveadm,
  user: string,
  production: readonly FolderStatus[],
): Promise<Map<string, string>> {
  const special = production.filter(({ specialUse }) => specialUse !== undefined)
  const answers = await doveadm.batch(
    special.map(({ path }) => [
      'mailboxMetadataGet',
      { user, mailbox: path, key: '/private/specialuse' },
    ]),
  )
  return new Map(
    special.map(({ path }, n) => [path, String(tableOf(answers[n])[0]?.['value'] ?? '')]),
  )
}

type Row = Readonly<Record<string, unknown>>

const tableOf = (data: unknown): Row[] => (Array.isArray(data) ? data.filter(isRow) : [])
const isRow = (item: unknown): item is Row => typeof item === 'object' && item !== null
