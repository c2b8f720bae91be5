import { isDeepStrictEqual } from 'node:util'
import type { Account } from './bed/accounts.ts'
import type { Bed } from './bed/bed.ts'
import { PORTS } from './bed/plan.ts'
import { askWorker } from './bed/tools.ts'

export type MessageDigest = {
  /** Sorted, without \Recent, which belongs to a session and not to a message. */
  readonly flags: readonly string[]
  readonly internalDate: string
  readonly sha256: string
  readonly bytes: number
  readonly messageId?: string
}
export type FolderDigest = {
  readonly uidValidity: number
  readonly uidNext: number
  readonly messages: Readonly<Record<number, MessageDigest>>
}
export type AccountDigest = {
  readonly folders: Readonly<Record<string, FolderDigest>>
  readonly subscriptions: readonly string[]
  /** Why nothing could be read; then there are no folders here. */
  readonly unreadable?: string
}
export type Digest = Readonly<Record<string, AccountDigest>>
export type DigestRequest = {
  readonly accounts: readonly Account[]
  readonly host: string
  readonly port: number
}

type Side = { readonly uidValidity: number; readonly uidNext: number; readonly messages: number }
export type FolderComparison = {
  readonly production: Side | null
  readonly replica: Side | null
  readonly identical: boolean
  /** Apart from `identical`: while the appliance stands in, its UIDNEXT is ahead by design. */
  readonly uidNextAgrees: boolean
  readonly differences: readonly string[]
}
export type Comparison = {
  readonly identical: boolean
  readonly accounts: Readonly<Record<string, Readonly<Record<string, FolderComparison>>>>
  readonly subscriptions: Readonly<Record<string, { identical: boolean; differences: string[] }>>
  /** Accounts that one side would not show, and its words. */
  readonly unreadable: Readonly<Record<string, string>>
}

const DIFFERENCES_SHOWN = 5

/** What production, or the appliance's always warm service, would show each user: by IMAP, with the users' passwords. */
export async function readDigest(bed: Bed, side: 'production' | 'replica'): Promise<Digest> {
  const namespace = bed.namespace(side === 'production' ? 'production' : 'svc')
  const { accounts } = bed.record
  const request: DigestRequest = { accounts, host: '127.0.0.1', port: PORTS.imap }
  return (await askWorker(namespace, 'digest-worker.ts', request)) as Digest
}

/** Whether the two sides hold the same: UIDVALIDITY, UIDs, flags, dates, bodies, folders, subscriptions. Pure. */
export function compare(production: Digest, replica: Digest): Comparison {
  const users = [...new Set([...Object.keys(production), ...Object.keys(replica)])]
  const accounts = Object.fromEntries(
    users.map((user) => {
      const [there, here] = [production[user]?.folders ?? {}, replica[user]?.folders ?? {}]
      const folders = [...new Set([...Object.keys(there), ...Object.keys(here)])]
      return [user, Object.fromEntries(folders.map((f) => [f, compareFolder(there[f], here[f])]))]
    }),
  )
  const subscriptions = Object.fromEntries(
    users.map((user) => {
      const there = production[user]?.subscriptions ?? []
      const here = replica[user]?.subscriptions ?? []
      const differences = onlyOnOneSide(there, here)
      return [user, { identical: differences.length === 0, differences }]
    }),
  )
  const unreadable = { ...reasons('production', production), ...reasons('replica', replica) }
  const identical =
    Object.keys(unreadable).length === 0 &&
    Object.values(accounts).every((folders) => Object.values(folders).every((f) => f.identical)) &&
    Object.values(subscriptions).every((one) => one.identical)
  return { identical, accounts, subscriptions, unreadable }
}

const reasons = (side: string, digest: Digest): Record<string, string> =>
  Object.fromEntries(
    Object.entries(digest).flatMap(([user, { unreadable }]) =>
      unreadable === undefined ? [] : [[user, `${side}: ${unreadable}`]],
    ),
  )

/** The digest, when every account could be read. @throws {Error} */
export function whole(digest: Digest): Digest {
  for (const [user, { unreadable }] of Object.entries(digest))
    if (unreadable !== undefined) throw new Error(`${user} cannot be read: ${unreadable}`)
  return digest
}

function onlyOnOneSide(production: readonly string[], replica: readonly string[]): string[] {
  return [
    ...production.filter((name) => !replica.includes(name)).map((n) => `only production: ${n}`),
    ...replica.filter((name) => !production.includes(name)).map((n) => `only replica: ${n}`),
  ]
}

function compareFolder(
  production: FolderDigest | undefined,
  replica: FolderDigest | undefined,
): FolderComparison {
  const differences = differencesOf(production, replica)
  return {
    production: sideOf(production),
    replica: sideOf(replica),
    identical: differences.length === 0,
    uidNextAgrees: production?.uidNext === replica?.uidNext,
    differences: differences.slice(0, DIFFERENCES_SHOWN),
  }
}

const sideOf = (folder: FolderDigest | undefined): Side | null =>
  folder === undefined
    ? null
    : {
        uidValidity: folder.uidValidity,
        uidNext: folder.uidNext,
        messages: Object.keys(folder.messages).length,
      }

function differencesOf(
  production: FolderDigest | undefined,
  replica: FolderDigest | undefined,
): string[] {
  if (production === undefined) return ['only on the replica']
  if (replica === undefined) return ['only on production']
  if (production.uidValidity !== replica.uidValidity)
    return [`UIDVALIDITY: production ${production.uidValidity}, replica ${replica.uidValidity}`]
  const uids = new Set([...Object.keys(production.messages), ...Object.keys(replica.messages)])
  return [...uids].map(Number).flatMap((uid) => {
    const difference = differenceOf(production.messages[uid], replica.messages[uid])
    return difference === undefined ? [] : [`UID ${uid}: ${difference}`]
  })
}

function differenceOf(
  production: MessageDigest | undefined,
  replica: MessageDigest | undefined,
): string | undefined {
  if (production === undefined) return `only on the replica (${replica?.messageId ?? 'no id'})`
  if (replica === undefined) return `only on production (${production.messageId ?? 'no id'})`
  if (isDeepStrictEqual(production, replica)) return undefined
  if (production.sha256 !== replica.sha256) return 'another body'
  if (production.internalDate !== replica.internalDate)
    return `INTERNALDATE: production ${production.internalDate}, replica ${replica.internalDate}`
  return `flags: production (${production.flags.join(' ')}), replica (${replica.flags.join(' ')})`
}
