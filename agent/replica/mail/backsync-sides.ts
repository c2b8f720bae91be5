import type { Flags, FolderView, Identities, Messages } from './merge.ts'

/** A message as it is handed over: its bytes, and its INTERNALDATE in IMAP's own notation. */
export type Letter = { readonly internalDate: string; readonly body: Buffer }
export type Outgoing = Letter & { readonly flags: Flags }

/** One folder at one server. Every call is over when the server has acknowledged it. */
export type Side = {
  read(): Promise<FolderView>
  /** Absent: expunged meanwhile. */
  identities(uids: readonly number[]): Promise<Identities>
  /** Message-IDs, `''` without one. */
  messageIds(uids: readonly number[]): Promise<ReadonlyMap<number, string>>
  /** INTERNALDATE and size: cheap, and different if a UID was given out twice. */
  stamps(uids: readonly number[]): Promise<ReadonlyMap<number, string>>
  /** Copies within the folder and answers the new UIDs, ascending. All or nothing. */
  copy(uids: readonly number[]): Promise<readonly number[]>
  expunge(uids: readonly number[]): Promise<void>
}

export type ApplianceSide = Side & {
  /**
   * The messages in ascending order of UID, in bounded portions; those expunged meanwhile are left out.
   * @throws {MessageRefused} for one that is too large to be handled
   */
  letters(uids: readonly number[]): AsyncIterable<ReadonlyMap<number, Letter>>
  /** No new message gets a UID below this one. */
  spread(uidNext: number): Promise<void>
}

export type ProductionSide = Side & {
  /** Appends messages, all or none, and answers their UIDs. @throws {MessageRefused} */
  append(letters: readonly Outgoing[]): Promise<readonly number[]>
  store(uids: readonly number[], sign: '+' | '-', flag: string): Promise<void>
  /** Those that are our own padding. */
  padding(candidates: readonly number[]): Promise<readonly number[]>
  highestModSeq(): Promise<bigint>
  /** Makes changes to the pads until HIGHESTMODSEQ has reached `modSeq`. */
  raiseModSeq(modSeq: bigint, pads: readonly number[]): Promise<void>
}

/** What both sides agreed on last, durably kept. */
export type Baseline = {
  messages(): Messages
  /** Where production stood when it was last heard of. */
  production(): { readonly uidNext: number; readonly highestModSeq: bigint }
  /** Writes some of it, at once durable. */
  settle(changed: Messages, gone?: ReadonlySet<number>): void
}

/** Production says no to a message: too big, over quota, or against its taste. */
export class MessageRefused extends Error {
  override readonly name = 'MessageRefused'
  readonly answer: string
  /** Known when the appliance itself refused to handle it. */
  readonly uid: number | undefined

  constructor(answer: string, uid?: number, cause?: unknown) {
    super(`a message was refused: ${answer}`, { cause })
    this.answer = answer
    this.uid = uid
  }
}

/** Production is not the server that was replicated, or lost most of it: a person decides. Nothing was written. */
export class Stranger extends Error {
  override readonly name = 'Stranger'
  readonly because: string

  constructor(because: string) {
    super(`production is not the server that was replicated: ${because}`)
    this.because = because
  }
}

/** From this many messages on it is worth asking whether most of them are gone. */
export const STRANGER_MESSAGES_MIN = 20

export const PAD_HEADER = 'X-Understudy-Pad'
/** A message that only uses up a UID. */
export const PAD: Outgoing = {
  flags: ['\\Deleted', '\\Seen'],
  internalDate: '01-Jan-2000 00:00:00 +0000',
  body: Buffer.from(`Subject: placeholder\r\n${PAD_HEADER}: 1\r\n\r\n`),
}
