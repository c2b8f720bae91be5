import { randomBytes } from 'node:crypto'
import { createReadStream, type ReadStream } from 'node:fs'
import { mkdir, open, readdir, readFile, rename, rm, statfs, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import * as v from 'valibot'
import { syncDirectory } from '../../firmware/durable-file.ts'
import type { Log } from '../../firmware/log.ts'

const recipient = v.variant('kind', [
  v.object({ kind: v.literal('local'), user: v.string(), address: v.string() }),
  v.object({ kind: v.literal('remote'), address: v.string() }),
])

const envelope = v.object({
  /** Stands in the message's `Received:` header too. */
  id: v.pipe(v.string(), v.regex(/^[a-z0-9]+$/)),
  /** Empty for a bounce (RFC 5321 §4.5.5). */
  from: v.string(),
  /** The account that submitted it, when its sender had logged in. */
  by: v.optional(v.string()),
  acceptedAt: v.string(),
  recipients: v.pipe(v.array(recipient), v.minLength(1)),
})

export type Recipient = v.InferOutput<typeof recipient>
export type Envelope = v.InferOutput<typeof envelope>

/** A message that is on the medium and is ours to deliver. */
export type Entry = {
  readonly envelope: Envelope
  /** Recipients, by their index in the envelope, who have neither got it nor been refused for good. */
  readonly pending: ReadonlySet<number>
  /** An attempt may have succeeded without our knowledge: look in the mailboxes before the next one. */
  suspect: boolean
}

/** A message that is on the medium under a name that the next start throws away. */
export type Staged = {
  /** Makes it ours: answers when it would survive a power cut. */
  commit(): Promise<Entry>
  discard(): Promise<void>
}

/** There is no room for another message: the sender shall try again. */
export class QueueFull extends Error {
  override readonly name = 'QueueFull'
}

/** Of the time in an id, in base 36. */
const TIME_DIGITS = 8
const ENTRIES_MAX = 50_000
/** Left to the journal and the ledger, which share the medium. */
const RESERVE_BYTES = 64 * 1024 * 1024
const ENVELOPE_BYTES_MAX = 4 * 1024 * 1024

export type QueueOptions = {
  readonly directory: string
  readonly log: Log
  readonly entriesMax?: number
  readonly reserveBytes?: number
}

/** A name that no other message has; sorted, the oldest comes first (until the year 2059). */
const queueId = (now: Date): string =>
  `${now.getTime().toString(36).padStart(TIME_DIGITS, '0')}${randomBytes(6).toString('hex')}`

/** When the message with this id was accepted, in milliseconds since 1970. */
export const acceptedMs = (id: string): number => Number.parseInt(id.slice(0, TIME_DIGITS), 36)

type Held = Entry & { readonly pending: Set<number>; readonly bodyOffset: number }

/**
 * Accepted mail, a file a message: its envelope as a line of JSON, then the message. A file appears under its name
 * by rename(2) after fsync(2); recipients that are done with are noted beside it, unless they were the last.
 */
export class MailQueue {
  readonly #options: QueueOptions
  readonly #entries = new Map<string, Held>()
  #syncing: { readonly running: Promise<void>; next: Promise<void> | undefined } | undefined

  constructor(options: QueueOptions) {
    this.#options = options
  }

  get length(): number {
    return this.#entries.size
  }

  /** Oldest first. */
  get entries(): readonly Entry[] {
    return [...this.#entries.values()]
  }

  /** Finds what an earlier run had accepted. All of it is suspect: that run may have delivered it just before its end. */
  async open(): Promise<void> {
    const { directory } = this.#options
    await mkdir(directory, { recursive: true, mode: 0o700 })
    const names = new Set(await readdir(directory))
    for (const name of [...names].sort()) {
      const [id = '', kind] = name.split('.')
      if (kind === 'tmp' || (kind === 'done' && !names.has(id))) await rm(join(directory, name))
      else if (kind === undefined) await this.#load(id)
    }
  }

  /**
   * Writes a message to the medium; the stream is never held in memory as a whole.
   * @throws {QueueFull} and whatever ends the stream. Nothing is left behind then.
   */
  async stage(
    parts: Omit<Envelope, 'id' | 'acceptedAt'>,
    headers: (id: string) => string,
    message: AsyncIterable<Buffer>,
  ): Promise<Staged> {
    await this.#assertRoom()
    const now = new Date()
    const id = queueId(now)
    const full: Envelope = { id, acceptedAt: now.toISOString(), ...parts }
    const line = Buffer.from(`${JSON.stringify(full)}\n`)
    const temporary = `${this.#path(id)}.tmp`
    try {
      const file = await open(temporary, 'wx', 0o600)
      try {
        await file.writeFile(Buffer.concat([line, Buffer.from(headers(id))]))
        await file.writeFile(message)
        await file.sync()
      } finally {
        await file.close()
      }
    } catch (error: unknown) {
      await rm(temporary, { force: true })
      throw isFull(error) ? new QueueFull('no space left', { cause: error }) : error
    }
    return {
      commit: () => this.#commit(full, temporary, line.length),
      discard: () => rm(temporary, { force: true }),
    }
  }

  /** The message of an entry, from its first header. @throws {RangeError} when it has been done with */
  read(entry: Entry): ReadStream {
    const { id } = entry.envelope
    const start = this.#entries.get(id)?.bodyOffset
    if (start === undefined) throw new RangeError(`${id} is not in the queue`)
    return createReadStream(this.#path(id), { start })
  }

  /** Notes recipients that are done with; with the last of them the message is gone. */
  async finish(entry: Entry, recipients: Iterable<number>): Promise<void> {
    const { id } = entry.envelope
    const held = this.#entries.get(id)
    const fresh = [...recipients].filter((index) => held?.pending.has(index))
    if (held === undefined || fresh.length === 0) return
    // Before anything is awaited: two lanes may finish their recipients at the same time.
    for (const index of fresh) held.pending.delete(index)
    if (held.pending.size === 0) return await this.#remove(id)
    const text = fresh.map((index) => `${index}\n`).join('')
    await writeFile(`${this.#path(id)}.done`, text, { flag: 'a', flush: true, mode: 0o600 })
    await this.#sync()
  }

  async #remove(id: string): Promise<void> {
    this.#entries.delete(id)
    await rm(this.#path(id))
    await rm(`${this.#path(id)}.done`, { force: true })
  }

  #path(id: string): string {
    return join(this.#options.directory, id)
  }

  async #assertRoom(): Promise<void> {
    const { directory, entriesMax = ENTRIES_MAX, reserveBytes = RESERVE_BYTES } = this.#options
    if (this.#entries.size >= entriesMax) throw new QueueFull(`${entriesMax} messages are waiting`)
    const { bavail, bsize } = await statfs(directory)
    if (bavail * bsize < reserveBytes) throw new QueueFull('too little space left')
  }

  async #commit(full: Envelope, temporary: string, bodyOffset: number): Promise<Entry> {
    await rename(temporary, this.#path(full.id))
    try {
      await this.#sync()
    } catch (error: unknown) {
      await rm(this.#path(full.id), { force: true })
      throw isFull(error) ? new QueueFull('no space left', { cause: error }) : error
    }
    return this.#hold(full, new Set(full.recipients.keys()), bodyOffset, false)
  }

  /** One fsync of the directory serves everybody who renamed before it began. */
  #sync(): Promise<void> {
    const { directory } = this.#options
    const start = (): Promise<void> => {
      const running = syncDirectory(directory).finally(() => {
        if (this.#syncing?.running === running) this.#syncing = undefined
      })
      this.#syncing = { running, next: undefined }
      return running
    }
    if (this.#syncing === undefined) return start()
    const { running } = this.#syncing
    // The one that runs may have begun before our rename: wait for the one after it.
    this.#syncing.next ??= running.then(start, start)
    return this.#syncing.next
  }

  async #load(id: string): Promise<void> {
    const line = await firstLine(this.#path(id))
    const parsed = v.safeParse(envelope, jsonOrUndefined(line))
    if (!parsed.success) {
      // It was never acknowledged as such: names appear after their content is on the medium.
      this.#options.log('error', 'queue.damaged', { id })
      return
    }
    const done = await readFile(`${this.#path(id)}.done`, 'utf8').catch(emptyWhenMissing)
    const finished = new Set(done.split('\n').filter(Boolean).map(Number))
    const all = [...parsed.output.recipients.keys()]
    const pending = new Set(all.filter((index) => !finished.has(index)))
    this.#hold(parsed.output, pending, Buffer.byteLength(line) + 1, true)
    if (pending.size === 0) await this.#remove(id)
  }

  #hold(full: Envelope, pending: Set<number>, bodyOffset: number, suspect: boolean): Held {
    const held: Held = { envelope: full, pending, bodyOffset, suspect }
    this.#entries.set(full.id, held)
    return held
  }
}

const isFull = (error: unknown): boolean =>
  error instanceof Error && 'code' in error && (error.code === 'ENOSPC' || error.code === 'EDQUOT')

const emptyWhenMissing = (error: NodeJS.ErrnoException): string => {
  if (error.code === 'ENOENT') return ''
  throw error
}

const jsonOrUndefined = (text: string): unknown => {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

async function firstLine(path: string): Promise<string> {
  const file = await open(path, 'r')
  try {
    const chunks: Buffer[] = []
    for (let offset = 0; offset < ENVELOPE_BYTES_MAX; ) {
      const { bytesRead, buffer } = await file.read(Buffer.alloc(65_536), 0, 65_536, offset)
      const chunk = buffer.subarray(0, bytesRead)
      const end = chunk.indexOf(10)
      chunks.push(end < 0 ? chunk : chunk.subarray(0, end))
      if (end >= 0 || bytesRead === 0) break
      offset += bytesRead
    }
    return Buffer.concat(chunks).toString('utf8')
  } finally {
    await file.close()
  }
}
