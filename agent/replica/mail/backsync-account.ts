import { CommandRefused, type ImapSession, type Line } from './backsync-session.ts'
import { itemOf, mailboxName, quotedMailbox, type Token, tokensOf } from './backsync-text.ts'
import { KnownViews } from './backsync-views.ts'
import type { FolderStatus } from './plan.ts'

const FOLDERS_MAX = 100_000

/** Where views of this account's folders are kept. */
export type Views = { readonly of: KnownViews; readonly prefix: string }

/** An account at one server: which folders there are, and one of them selected. */
export class ImapAccount {
  readonly session: ImapSession
  readonly views: Views
  /** What the selected folder knows besides the flags of IMAP itself. */
  keywords: readonly string[] = []
  /** Prefixes of what belongs to others. */
  readonly #foreign: readonly string[]
  readonly #statusItems: string
  #selected: string | undefined
  #permanent: ReadonlySet<string> = new Set()

  constructor(session: ImapSession, foreignPrefixes: readonly string[] = [], views?: Views) {
    this.session = session
    this.views = views ?? { of: new KnownViews(), prefix: '' }
    this.#foreign = foreignPrefixes.filter((prefix) => prefix !== '')
    const modSeq = session.capabilities.has('CONDSTORE') || session.capabilities.has('QRESYNC')
    this.#statusItems = `(MESSAGES UNSEEN UIDNEXT UIDVALIDITY${modSeq ? ' HIGHESTMODSEQ' : ''})`
  }

  /** The account's own folders that can hold messages. */
  async folders(): Promise<FolderStatus[]> {
    await this.unselect()
    const has = this.session.capabilities
    const items = [
      ...(has.has('SPECIAL-USE') ? ['SPECIAL-USE'] : []),
      ...(has.has('LIST-STATUS') ? [`STATUS ${this.#statusItems}`] : []),
    ]
    const options = items.length === 0 ? '' : ` RETURN (${items.join(' ')})`
    const { lines } = await this.session.command(`LIST "" "*"${options}`)
    const listed = lines.map(tokensOf)
    const names = listed.flatMap((line) => this.#folderIn(line))
    if (names.length > FOLDERS_MAX) throw new RangeError(`more than ${FOLDERS_MAX} folders`)
    const answers = has.has('LIST-STATUS')
      ? listed
      : (
          await Promise.all(
            names.map(({ path }) =>
              this.session.command(`STATUS ${quotedMailbox(path)} ${this.#statusItems}`),
            ),
          )
        ).flatMap((answer) => answer.lines.map(tokensOf))
    const status = new Map(answers.flatMap(statusIn))
    return names.flatMap(({ path, specialUse }) => {
      const found = status.get(path)
      return found === undefined ? [] : [{ path, ...found, ...specialUse }]
    })
  }

  /**
   * Where one folder stands. Of a selected folder a server may tell what it last saw itself (RFC 3501 §6.3.10), so that
   * it is left first, unless nothing but `ownWork` matters.
   */
  async status(path: string, ownWork = false): Promise<FolderStatus> {
    if (this.#selected === path && !ownWork) await this.unselect()
    const command = `STATUS ${quotedMailbox(path)} ${this.#statusItems}`
    const { lines } = await this.session.command(command)
    const [found] = lines.map(tokensOf).flatMap(statusIn)
    if (found === undefined)
      throw new CommandRefused(this.session.peer, 'STATUS', 'OK, but without an answer')
    return { path, ...found[1] }
  }

  async subscriptions(): Promise<string[]> {
    const { lines } = await this.session.command('LSUB "" "*"')
    return lines
      .map(tokensOf)
      .filter(([name]) => name === 'LSUB')
      .map((line) => mailboxName(String(line[3] ?? '')))
      .sort()
  }

  /** Makes a folder the selected one; `anew`: as it stands now. */
  async select(path: string, anew = false): Promise<readonly Line[]> {
    if (this.#selected === path && !anew) {
      await this.session.command('NOOP', () => {})
      return []
    }
    this.#selected = undefined
    const { lines } = await this.session.command(`SELECT ${quotedMailbox(path)}`)
    this.#selected = path
    const permanent = lines.map(({ text }) => /\[PERMANENTFLAGS \(([^)]*)\)/i.exec(text)?.[1])
    const flags = permanent.find((text) => text !== undefined)?.split(' ') ?? []
    this.#permanent = new Set(flags.map((flag) => flag.toLowerCase()))
    this.keywords = flags.filter((flag) => /^[a-z0-9$_]/i.test(flag))
    return lines
  }

  /** Whether the selected folder keeps this flag. */
  keeps(flag: string): boolean {
    const lower = flag.toLowerCase()
    return this.#permanent.has(lower) || (this.#permanent.has('\\*') && !lower.startsWith('\\'))
  }

  async create(path: string, specialUse: string | undefined): Promise<void> {
    const use =
      specialUse !== undefined && this.session.capabilities.has('CREATE-SPECIAL-USE')
        ? ` (USE (${specialUse}))`
        : ''
    await this.session.command(`CREATE ${quotedMailbox(path)}${use}`).catch((error: unknown) => {
      // A special use may be taken already (RFC 6154 §3): the folder matters more.
      if (use === '' || !(error instanceof CommandRefused)) throw error
      return this.session.command(`CREATE ${quotedMailbox(path)}`)
    })
  }

  async rename(from: string, to: string): Promise<void> {
    this.#selected = undefined
    await this.session.command(`RENAME ${quotedMailbox(from)} ${quotedMailbox(to)}`)
  }

  async delete(path: string): Promise<void> {
    await this.unselect()
    await this.session.command(`DELETE ${quotedMailbox(path)}`)
  }

  async subscribe(path: string, on: boolean): Promise<void> {
    await this.session.command(`${on ? 'SUBSCRIBE' : 'UNSUBSCRIBE'} ${quotedMailbox(path)}`)
  }

  /** The selected folder is left without expunging anything. */
  async unselect(): Promise<void> {
    if (this.#selected === undefined) return
    this.#selected = undefined
    if (this.session.capabilities.has('UNSELECT')) await this.session.command('UNSELECT')
    // Selecting a folder that cannot be selected does the same (RFC 3501 §6.3.1).
    else await this.session.command('EXAMINE ""').catch(() => {})
  }

  #folderIn(line: readonly Token[]) {
    const [name, flags, , wire] = line
    if (name !== 'LIST' || !Array.isArray(flags) || typeof wire !== 'string') return []
    const lower = flags.map((flag) => String(flag).toLowerCase())
    if (lower.includes('\\noselect') || lower.includes('\\nonexistent')) return []
    const path = mailboxName(wire)
    if (this.#foreign.some((prefix) => path.startsWith(prefix))) return []
    const use = flags.find((flag) => SPECIAL_USES.has(String(flag).toLowerCase()))
    return [{ path, specialUse: use === undefined ? {} : { specialUse: String(use) } }]
  }
}

const SPECIAL_USES = new Set(['\\archive', '\\drafts', '\\junk', '\\sent', '\\trash', '\\flagged'])

function statusIn(line: readonly Token[]): [string, Omit<FolderStatus, 'path'>][] {
  const [name, wire, list] = line
  if (name !== 'STATUS' || typeof wire !== 'string' || !Array.isArray(list)) return []
  const number = (item: string) => Number(itemOf(list, item) ?? 0)
  return [
    [
      mailboxName(wire),
      {
        uidValidity: number('UIDVALIDITY'),
        uidNext: number('UIDNEXT'),
        messages: number('MESSAGES'),
        unseen: number('UNSEEN'),
        highestModSeq: BigInt(String(itemOf(list, 'HIGHESTMODSEQ') ?? 0)),
      },
    ],
  ]
}
