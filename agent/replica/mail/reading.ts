import type { ImapFlow } from 'imapflow'
import { decodePath } from 'imapflow/lib/tools.js'
import { type Doveadm, type DoveadmCommand, DoveadmRefused } from './doveadm.ts'
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

/** What the replica holds of an account. */
export type ReplicaLook = {
  readonly folders: readonly FolderStatus[]
  /** Sorted; names without a folder among them. */
  readonly subscriptions: readonly string[]
  /** Special uses of the folders that were asked for. */
  readonly specialUses: ReadonlyMap<string, string>
  /** All messages, folder by folder, where they were asked for. */
  readonly rows?: ReadonlyMap<string, readonly MessageRow[]>
}

export type LookOptions = {
  /** Folders whose special use is asked for. */
  readonly special: readonly string[]
  /** Whether all messages are read: only where they are known to be few. */
  readonly rows: boolean
}

const ROW_FIELDS = ['uid', 'flags', 'date.received.unixtime', 'size.virtual']

/** Commands whose results `replicaLookOf` understands, to be run in the same request as others. */
export const lookCommands = (user: string, { special, rows }: LookOptions): DoveadmCommand[] => [
  [
    'mailboxStatus',
    {
      user,
      field: ['messages', 'unseen', 'uidnext', 'uidvalidity', 'highestmodseq'],
      mailboxMask: ['*'],
    },
  ],
  ['mailboxList', { user, subscriptions: true }],
  ...special.map(
    (mailbox): DoveadmCommand => [
      'mailboxMetadataGet',
      { user, mailbox, key: '/private/specialuse' },
    ],
  ),
  ...(rows
    ? [
        [
          'fetch',
          { user, field: ['mailbox', ...ROW_FIELDS], query: ['all'] },
        ] satisfies DoveadmCommand,
      ]
    : []),
]

/** @throws {DoveadmRefused} when one of the results is a refusal, that of a special use excepted */
export function replicaLookOf(
  results: readonly unknown[],
  { special, rows }: LookOptions,
): ReplicaLook {
  const [status, subscribed] = [tableOf(results[0]), tableOf(results[1])]
  const uses = results.slice(2, 2 + special.length)
  return {
    folders: status.map((row) => ({
      path: String(row['mailbox']),
      uidValidity: Number(row['uidvalidity']),
      uidNext: Number(row['uidnext']),
      messages: Number(row['messages']),
      unseen: Number(row['unseen']),
      highestModSeq: BigInt(String(row['highestmodseq'])),
    })),
    subscriptions: subscribed.map((row) => String(row['mailbox'])).sort(),
    specialUses: new Map(
      special.map((path, n) => [
        path,
        uses[n] instanceof DoveadmRefused ? '' : String(tableOf(uses[n])[0]?.['value'] ?? ''),
      ]),
    ),
    ...(rows ? { rows: rowsByFolder(tableOf(results[2 + special.length])) } : {}),
  }
}

function rowsByFolder(table: readonly Row[]): Map<string, MessageRow[]> {
  const folders = new Map<string, MessageRow[]>()
  for (const row of table) {
    const path = String(row['mailbox'])
    const rows = folders.get(path) ?? []
    folders.set(path, rows)
    rows.push(rowOf(row))
  }
  return folders
}

const rowOf = (row: Row): MessageRow => ({
  uid: Number(row['uid']),
  flags: flagText(String(row['flags']).split(' ').filter(Boolean)),
  dateS: Number(row['date.received.unixtime']),
  size: Number(row['size.virtual']),
})

const NOTHING_MORE: LookOptions = { special: [], rows: false }

/** @throws {PeerUnreachable} {DoveadmRefused} */
export async function lookAtReplica(
  doveadm: Doveadm,
  user: string,
  options = NOTHING_MORE,
): Promise<ReplicaLook> {
  return replicaLookOf(await doveadm.each(lookCommands(user, options)), options)
}

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
  const answers = await doveadm.batch(
    queries.map(({ path, query }) => [
      'fetch',
      { user, field: ROW_FIELDS, query: ['mailbox', path, ...query] },
    ]),
  )
  return answers.map((answer) => tableOf(answer).map(rowOf))
}

type Row = Readonly<Record<string, unknown>>

function tableOf(data: unknown): Row[] {
  if (data instanceof DoveadmRefused) throw data
  return Array.isArray(data) ? data.filter(isRow) : []
}

const isRow = (item: unknown): item is Row => typeof item === 'object' && item !== null
