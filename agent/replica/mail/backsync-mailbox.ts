import type { ImapAccount } from './backsync-account.ts'
import { CommandRefused, type ImapSession, type Line } from './backsync-session.ts'
import {
  type Letter,
  MessageRefused,
  type Outgoing,
  PAD_HEADER,
  type ProductionSide,
} from './backsync-sides.ts'
import {
  flagsIn,
  identityOf,
  messageIdIn,
  quotedMailbox,
  secondsOf,
  uidsOf,
} from './backsync-text.ts'
import type { KnownView } from './backsync-views.ts'
import { type Flags, type FolderView, type Identity, uidSets } from './merge.ts'

/** A portion of messages on their way: so much is held in memory, or one message if it is larger. */
const PORTION_BYTES_MAX = 4 * 1024 * 1024
const PORTION_MESSAGES_MAX = 256
/** A larger message is not handled. */
const MESSAGE_BYTES_MAX = 64 * 1024 * 1024
/** Commands written ahead of their answers. */
const PIPELINED_MAX = 500
const KEYWORDS_MAX = 50

/** One folder over IMAP, in either role. Needs UIDPLUS (RFC 4315) for what is written. */
export class ImapFolder implements ProductionSide {
  readonly #account: ImapAccount
  readonly #session: ImapSession
  readonly #path: string

  constructor(account: ImapAccount, path: string) {
    this.#account = account
    this.#session = account.session
    this.#path = path
  }

  async read(): Promise<FolderView> {
    const lines = await this.#account.select(this.#path, true)
    const said = (pattern: RegExp) =>
      Number(lines.map(({ text }) => pattern.exec(text)?.[1]).find((n) => n !== undefined) ?? 0)
    const { of: views, prefix } = this.#account.views
    const key = `${prefix}${this.#path}`
    const uidValidity = said(/\[UIDVALIDITY (\d+)/)
    const highestModSeq = BigInt(said(/\[HIGHESTMODSEQ (\d+)/))
    const known = views.get(key)
    const isKnown = known?.uidValidity === uidValidity && highestModSeq >= known.highestModSeq
    const exists = said(/^\* (\d+) EXISTS/)
    const messages = await this.#messages(exists, highestModSeq, isKnown ? known : undefined)
    views.set(key, { uidValidity, highestModSeq, messages })
    let last = 0
    for (const uid of messages.keys()) last = Math.max(last, uid)
    return { uidNext: Math.max(said(/\[UIDNEXT (\d+)/), last + 1), highestModSeq, messages }
  }

  async #messages(
    exists: number,
    highestModSeq: bigint,
    known: KnownView | undefined,
  ): Promise<ReadonlyMap<number, Flags>> {
    if (exists === 0) return new Map()
    if (known?.highestModSeq === highestModSeq && known.messages.size === exists)
      return known.messages
    const messages = new Map(known?.messages)
    const since = known === undefined ? '' : ` (CHANGEDSINCE ${known.highestModSeq})`
    await this.#session.command(`UID FETCH 1:* (FLAGS)${since}`, (line) => {
      const found = flagsIn(line)
      if (found !== undefined) messages.set(...found)
    })
    if (messages.size === exists) return messages
    const present = new Set(await this.#present())
    for (const uid of messages.keys()) if (!present.has(uid)) messages.delete(uid)
    return messages
  }

  async #present(): Promise<readonly number[]> {
    const esearch = this.#session.capabilities.has('ESEARCH')
    const { lines } = await this.#session.command(`UID SEARCH${esearch ? ' RETURN (ALL)' : ''} ALL`)
    return lines.flatMap(({ text }) => {
      const [, set, list] = /^\* (?:ESEARCH .* ALL (\S+)|SEARCH((?: \d+)*))/.exec(text) ?? []
      return set === undefined ? (list ?? '').split(' ').filter(Boolean).map(Number) : uidsOf(set)
    })
  }

  async highestModSeq(): Promise<bigint> {
    return (await this.#account.status(this.#path, true)).highestModSeq
  }

  async identities(uids: readonly number[]): Promise<ReadonlyMap<number, Identity>> {
    const found = new Map<number, Identity>()
    await this.#fetch(uids, '(INTERNALDATE BODY.PEEK[])', (line) => {
      const letter = letterIn(line)
      if (letter !== undefined) found.set(letter.uid, identityOf(letter.internalDate, letter.body))
    })
    return found
  }

  async messageIds(uids: readonly number[]): Promise<ReadonlyMap<number, string>> {
    const found = new Map<number, string>()
    await this.#fetch(uids, '(BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)])', (line) => {
      const uid = uidIn(line)
      if (uid !== undefined) found.set(uid, messageIdIn(bodyIn(line).toString('latin1')))
    })
    return found
  }

  async stamps(uids: readonly number[]): Promise<ReadonlyMap<number, string>> {
    const found = new Map<number, string>()
    await this.#fetch(uids, '(INTERNALDATE RFC822.SIZE)', (line) => {
      const uid = uidIn(line)
      if (uid !== undefined) found.set(uid, stampIn(line))
    })
    return found
  }

  /** The next portion is on its way while the one before is in use. @throws {MessageRefused} */
  async *letters(uids: readonly number[]): AsyncGenerator<ReadonlyMap<number, Letter>> {
    const portions = await this.#portions(uids)
    const fetch = (portion: Portion | undefined) => {
      const letters = portion === undefined ? Promise.resolve(undefined) : this.#portion(portion)
      // Whoever stops early must not hear of the failure of what was asked for ahead.
      letters.catch(() => {})
      return letters
    }
    let next = fetch(portions[0])
    for (const n of portions.keys()) {
      const letters = await next
      next = fetch(portions[n + 1])
      if (letters !== undefined) yield letters
    }
  }

  async append(letters: readonly Outgoing[]): Promise<readonly number[]> {
    await this.#account.select(this.#path)
    if (this.#session.capabilities.has('MULTIAPPEND')) return await this.#append(letters)
    const uids: number[] = []
    for (const letter of letters) {
      try {
        uids.push(...(await this.#append([letter])))
      } catch (error: unknown) {
        await this.expunge(uids)
        throw error
      }
    }
    return uids
  }

  async copy(uids: readonly number[]): Promise<readonly number[]> {
    await this.#account.select(this.#path)
    const given: number[] = []
    for (const set of uidSets(uids)) {
      const { code } = await this.#session.command(`UID COPY ${set} ${quotedMailbox(this.#path)}`)
      given.push(...uidsOf(/^COPYUID \d+ \S+ (\S+)/i.exec(code)?.[1] ?? ''))
    }
    return given.sort((a, b) => a - b)
  }

  async expunge(uids: readonly number[]): Promise<void> {
    if (uids.length === 0) return
    await this.#account.select(this.#path)
    const ignore = () => {}
    await Promise.all(
      uidSets(uids).flatMap((set) => [
        this.#session.command(`UID STORE ${set} +FLAGS.SILENT (\\Deleted)`, ignore),
        this.#session.command(`UID EXPUNGE ${set}`, ignore),
      ]),
    )
  }

  async store(uids: readonly number[], sign: '+' | '-', flag: string): Promise<void> {
    await this.#account.select(this.#path)
    if (!this.#account.keeps(flag)) return
    await Promise.all(
      uidSets(uids).map((set) =>
        this.#session.command(`UID STORE ${set} ${sign}FLAGS.SILENT (${flag})`, () => {}),
      ),
    )
  }

  async padding(candidates: readonly number[]): Promise<readonly number[]> {
    const found: number[] = []
    const field = PAD_HEADER.toUpperCase()
    await this.#fetch(candidates, `(BODY.PEEK[HEADER.FIELDS (${field})])`, (line) => {
      const uid = uidIn(line)
      if (uid !== undefined && bodyIn(line).toString('latin1').toUpperCase().includes(field))
        found.push(uid)
    })
    return found
  }

  /**
   * What counts as a change differs: with Cyrus each message that a command changes, with Dovecot each keyword. Two
   * trials tell. Only keywords that the folder knows already are used: it would remember others for ever.
   */
  async raiseModSeq(modSeq: bigint, pads: readonly number[]): Promise<void> {
    await this.#account.select(this.#path)
    const flags = ['\\Flagged', ...this.#account.keywords.slice(0, KEYWORDS_MAX)].join(' ')
    const [all = '', one] = [uidSets(pads)[0], String(pads[0] ?? 0)]
    let isSet = false
    const toggle = (set: string) => {
      isSet = !isSet
      const sign = isSet ? '+' : '-'
      return this.#session.command(`UID STORE ${set} ${sign}FLAGS.SILENT (${flags})`, () => {})
    }
    const before = await this.highestModSeq()
    await toggle(all)
    const between = await this.highestModSeq()
    await toggle(one)
    let now = await this.highestModSeq()
    const [gainOfAll, gainOfOne] = [between - before, now - between]
    const [set, gain] = gainOfAll > gainOfOne ? [all, gainOfAll] : [one, gainOfOne]
    for (let last = between; gain > 0n && now < modSeq && now > last; ) {
      const count = Math.min(PIPELINED_MAX, Number((modSeq - now + gain - 1n) / gain))
      await Promise.all(Array.from({ length: count }, () => toggle(set)))
      last = now
      now = await this.highestModSeq()
    }
  }

  async #append(letters: readonly Outgoing[]): Promise<readonly number[]> {
    const parts: (string | Buffer)[] = [`APPEND ${quotedMailbox(this.#path)}`]
    for (const { flags, internalDate, body } of letters) {
      const kept = flags.filter((flag) => this.#account.keeps(flag))
      parts.push(` (${kept.join(' ')}) "${internalDate}" `, body)
    }
    try {
      const { code } = await this.#session.command(parts)
      const uids = uidsOf(/^APPENDUID \d+ (\S+)/i.exec(code)?.[1] ?? '')
      if (uids.length === letters.length) return uids
      throw new CommandRefused(this.#session.peer, 'APPEND', `OK [${code}], but without the UIDs`)
    } catch (error: unknown) {
      if (!(error instanceof CommandRefused) || error.answer.startsWith('OK')) throw error
      throw new MessageRefused(error.answer, undefined, error)
    }
  }

  async #fetch(uids: readonly number[], items: string, each: (line: Line) => void): Promise<void> {
    if (uids.length === 0) return
    await this.#account.select(this.#path)
    for (const set of uidSets(uids)) await this.#session.command(`UID FETCH ${set} ${items}`, each)
  }

  async #portions(uids: readonly number[]): Promise<Portion[]> {
    const sizes = new Map<number, number>()
    await this.#fetch(uids, '(RFC822.SIZE)', (line) => {
      const uid = uidIn(line)
      if (uid !== undefined) sizes.set(uid, Number(/RFC822\.SIZE (\d+)/.exec(line.text)?.[1] ?? 0))
    })
    const portions: { uids: number[]; bytes: number }[] = []
    for (const uid of uids) {
      const bytes = sizes.get(uid)
      if (bytes === undefined) continue
      const last = portions.at(-1)
      const isFull =
        last === undefined ||
        last.bytes + bytes > PORTION_BYTES_MAX ||
        last.uids.length >= PORTION_MESSAGES_MAX
      if (isFull) portions.push({ uids: [uid], bytes })
      else {
        last.uids.push(uid)
        last.bytes += bytes
      }
    }
    return portions
  }

  async #portion({ uids, bytes }: Portion): Promise<ReadonlyMap<number, Letter>> {
    if (bytes > MESSAGE_BYTES_MAX)
      throw new MessageRefused(`${bytes} bytes are more than ${MESSAGE_BYTES_MAX}`, uids[0])
    const found = new Map<number, Letter>()
    await this.#fetch(uids, '(INTERNALDATE BODY.PEEK[])', (line) => {
      const letter = letterIn(line)
      if (letter !== undefined) found.set(letter.uid, letter)
    })
    return new Map([...found].sort(([a], [b]) => a - b))
  }
}

type Portion = { readonly uids: readonly number[]; readonly bytes: number }

const uidIn = ({ text }: Line): number | undefined => {
  const uid = /^\* \d+ FETCH .*?[( ]UID (\d+)/.exec(text)?.[1]
  return uid === undefined ? undefined : Number(uid)
}

const dateIn = ({ text }: Line): string => /INTERNALDATE "([^"]*)"/.exec(text)?.[1] ?? ''

const stampIn = (line: Line): string =>
  `${secondsOf(dateIn(line))} ${/RFC822\.SIZE (\d+)/.exec(line.text)?.[1]}`

/** A body comes as a literal, or as a string if it is short. */
const bodyIn = ({ text, literals }: Line): Buffer => {
  const [literal] = literals
  if (literal !== undefined) return literal
  const string = /BODY\[[^\]]*\] "((?:[^"\\]|\\.)*)"/.exec(text)?.[1] ?? ''
  return Buffer.from(string.replace(/\\(.)/g, '$1'), 'latin1')
}

const letterIn = (line: Line): (Letter & { readonly uid: number }) | undefined => {
  const uid = uidIn(line)
  if (uid === undefined || !line.text.includes('BODY[]')) return undefined
  return { uid, internalDate: dateIn(line), body: bodyIn(line) }
}
