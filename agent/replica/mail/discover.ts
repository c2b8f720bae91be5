import type { ImapFlow } from 'imapflow'

/** How production names mailboxes; the replica must do the same, or users would see other folders. */
export type Naming = {
  readonly separator: string
  readonly prefix: string
  /** Mailbox without the prefix → its special use (RFC 6154), such as `\Sent`. */
  readonly specialUse: Readonly<Record<string, string>>
}

/** Asks one account: its personal namespace (RFC 2342) and what it says its folders are for (RFC 6154). */
export async function discoverNaming(client: ImapFlow): Promise<Naming> {
  const folders = await client.list()
  const inbox = folders.find(({ path }) => path.toUpperCase() === 'INBOX')
  const prefix = client.namespace?.prefix ?? ''
  const named = folders.flatMap(({ path, specialUse, specialUseSource }) => {
    // A guess from the folder's name is not what production says.
    const isSaid = specialUse !== undefined && specialUseSource === 'extension'
    return isSaid && specialUse !== '\\Inbox' && path.startsWith(prefix)
      ? [[path.slice(prefix.length), specialUse] as const]
      : []
  })
  return {
    separator: inbox?.delimiter ?? client.namespace?.delimiter ?? '/',
    prefix,
    specialUse: Object.fromEntries(named.sort()),
  }
}
