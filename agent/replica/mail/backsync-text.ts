import { createHash } from 'node:crypto'
import type { Line } from './backsync-session.ts'
import type { Identity } from './merge.ts'

/** A value of an IMAP answer: an atom or string, or a list in parentheses. `null` is NIL. */
export type Token = string | null | readonly Token[]

/** A mailbox name as IMAP4rev1 has it on the wire, quoted: modified UTF-7 (RFC 3501 §5.1.3). */
export const quotedMailbox = (path: string): string =>
  quoted(path.replace(/&|[^\x20-\x7e]+/g, (run) => (run === '&' ? '&-' : `&${base64Of(run)}-`)))

const base64Of = (text: string): string =>
  Buffer.from(text, 'utf16le').swap16().toString('base64').replace(/=+$/, '').replaceAll('/', ',')

/** What people call a mailbox, from its name on the wire. */
export const mailboxName = (wire: string): string => {
  const path = wire.replace(/&([^-]*)-/g, (_, run: string) =>
    run === '' ? '&' : Buffer.from(run.replaceAll(',', '/'), 'base64').swap16().toString('utf16le'),
  )
  return path.toUpperCase() === 'INBOX' ? 'INBOX' : path
}

const quoted = (text: string): string => `"${text.replace(/["\\]/g, '\\$&')}"`

/** The values of a line after its `* `. */
export function tokensOf({ text, literals }: Line): readonly Token[] {
  const pattern = /\s*(?:([()])|"((?:[^"\\]|\\.)*)"|\{(\d+)\}|((?:[^\s()"[]|\[[^\]]*\])+))/gy
  pattern.lastIndex = 2
  const stack: Token[][] = [[]]
  let literal = 0
  for (let match = pattern.exec(text); match !== null; match = pattern.exec(text)) {
    const [, bracket, string, size, atom] = match
    if (bracket === '(') stack.push([])
    else if (bracket === ')') {
      const list = stack.pop() ?? []
      stack.at(-1)?.push(list)
    } else if (string !== undefined) stack.at(-1)?.push(string.replace(/\\(.)/g, '$1'))
    else if (size !== undefined) stack.at(-1)?.push(literals[literal++]?.toString('latin1') ?? '')
    else if (atom !== undefined) stack.at(-1)?.push(atom.toUpperCase() === 'NIL' ? null : atom)
  }
  return stack[0] ?? []
}

/** The value after a name in a flat list, such as `UIDNEXT 5`. */
export const itemOf = (list: readonly Token[], name: string): Token | undefined => {
  const index = list.findIndex((item) => typeof item === 'string' && item.toUpperCase() === name)
  return index === -1 ? undefined : list[index + 1]
}

/** UID and flags of a FETCH answer, by a pattern since there may be hundreds of thousands of them. */
export function flagsIn({
  text,
}: Line): readonly [uid: number, flags: readonly string[]] | undefined {
  const uid = /[( ]UID (\d+)/.exec(text)?.[1]
  const flags = /[( ]FLAGS \(([^)]*)\)/.exec(text)?.[1]
  if (uid === undefined || flags === undefined) return undefined
  return [Number(uid), flagList(flags)]
}

const known = new Map<string, readonly string[]>()
const KNOWN_MAX = 1_000

const flagList = (text: string): readonly string[] => {
  const before = known.get(text)
  if (before !== undefined) return before
  const flags = text.split(' ').filter((flag) => flag !== '' && flag !== '\\Recent')
  const list = flags.sort()
  if (known.size < KNOWN_MAX) known.set(text, list)
  return list
}

/** More messages than any folder has. */
const UIDS_MAX = 10_000_000

/** UIDs of a set such as `3:5,9`, in its order. @throws {RangeError} */
export const uidsOf = (set: string): number[] =>
  set
    .split(',')
    .filter(Boolean)
    .flatMap((range) => {
      const [first = 0, last = first] = range.split(':').map(Number)
      if (!(last - first < UIDS_MAX)) throw new RangeError(`not a set of UIDs: ${range}`)
      return Array.from({ length: last - first + 1 }, (_, n) => first + n)
    })

/** INTERNALDATE in seconds since 1970. */
export const secondsOf = (internalDate: string): number =>
  Date.parse(internalDate.trim().replace('-', ' ').replace('-', ' ')) / 1_000

/** What makes a message this one. Line ends are no part of it: servers differ in what they make of them. */
export function identityOf(internalDate: string, message: Buffer): Identity {
  const text = message.toString('latin1').replaceAll('\r', '')
  const end = text.indexOf('\n\n')
  const header = end === -1 ? text : text.slice(0, end + 1)
  const exact = `${secondsOf(internalDate)} ${digest(text)}`
  const id = messageIdIn(header)
  return {
    exact,
    letter: id === '' ? exact : `${id} ${digest(text.slice(header.length).trimEnd())}`,
  }
}

/** The Message-ID of a header, `''` without one. */
export const messageIdIn = (header: string): string =>
  /^message-id:\s*(\S+)/im.exec(header)?.[1] ?? ''

const digest = (text: string): string =>
  createHash('sha256').update(text, 'latin1').digest('base64')
