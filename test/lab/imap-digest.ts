import { createHash } from 'node:crypto'
import type { ImapFlow } from 'imapflow'
import {
  flagText,
  productionFolders,
  productionSubscriptions,
} from '../../agent/replica/mail/reading.ts'

export type MessageDigest = {
  /** Sorted, joined by spaces, without `\Recent`. */
  readonly flags: string
  /** INTERNALDATE in ISO 8601, to the second. */
  readonly internalDate: string
  /** Of the whole message, in hexadecimal. */
  readonly sha256: string
}

export type FolderDigest = {
  readonly uidValidity: number
  readonly uidNext: number
  readonly messages: ReadonlyMap<number, MessageDigest>
}

/** All that a mail client can know of an account, MODSEQs excepted. */
export type AccountDigest = {
  readonly folders: ReadonlyMap<string, FolderDigest>
  readonly subscriptions: readonly string[]
}

/** Reads an account through any server's IMAP; one message at a time is in memory. */
export async function digestOf(client: ImapFlow): Promise<AccountDigest> {
  const folders = new Map<string, FolderDigest>()
  const listed = await productionFolders(client)
  const subscriptions = await productionSubscriptions(client)
  for (const { path, uidValidity, uidNext } of listed)
    folders.set(path, { uidValidity, uidNext, messages: await messagesOf(client, path) })
  return { folders, subscriptions }
}

async function messagesOf(client: ImapFlow, path: string): Promise<Map<number, MessageDigest>> {
  const messages = new Map<number, MessageDigest>()
  const { exists } = await client.mailboxOpen(path, { readOnly: true })
  if (exists === 0) return messages
  const wanted = { uid: true, flags: true, internalDate: true, source: true }
  for await (const { uid, flags, internalDate, source } of client.fetch('1:*', wanted))
    messages.set(uid, {
      flags: flagText(flags ?? []),
      internalDate: `${new Date(internalDate ?? 0).toISOString().slice(0, 19)}Z`,
      sha256: createHash('sha256')
        .update(source ?? '')
        .digest('hex'),
    })
  return messages
}

/** In what two accounts differ, in words; at most `limit` of them. */
export function compareDigests(a: AccountDigest, b: AccountDigest, limit = 20): string[] {
  const words: string[] = []
  const [first, second] = [a.subscriptions.join(', '), b.subscriptions.join(', ')]
  if (first !== second) words.push(`subscriptions: ${first} / ${second}`)
  for (const path of new Set([...a.folders.keys(), ...b.folders.keys()])) {
    const [left, right] = [a.folders.get(path), b.folders.get(path)]
    if (left === undefined || right === undefined)
      words.push(`${path}: only in the ${left === undefined ? 'second' : 'first'}`)
    else words.push(...folderDifferences(path, left, right))
    if (words.length >= limit) break
  }
  return words.slice(0, limit)
}

function folderDifferences(path: string, a: FolderDigest, b: FolderDigest): string[] {
  const words: string[] = []
  for (const key of ['uidValidity', 'uidNext'] as const)
    if (a[key] !== b[key]) words.push(`${path}: ${key} ${a[key]} / ${b[key]}`)
  for (const uid of new Set([...a.messages.keys(), ...b.messages.keys()])) {
    const [left, right] = [a.messages.get(uid), b.messages.get(uid)]
    if (left === undefined || right === undefined)
      words.push(`${path}: UID ${uid} only in the ${left === undefined ? 'second' : 'first'}`)
    else
      for (const key of ['flags', 'internalDate', 'sha256'] as const)
        if (left[key] !== right[key])
          words.push(`${path}: UID ${uid}: ${key} ${left[key]} / ${right[key]}`)
  }
  return words
}
