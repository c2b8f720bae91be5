import { setTimeout as delay } from 'node:timers/promises'
import { pick } from '../../fakes/random.ts'
import { type ImapClient, type ImapResponse, quoted } from '../clients/imap.ts'
import { ConnectionLost } from '../clients/line-socket.ts'
import type { SmtpClient } from '../clients/smtp.ts'
import { isRefusal, openImap, openPop3, openSmtp, openSubmission, type Person } from './access.ts'
import type { Gate } from './gate.ts'
import { addressOf, letter, newItem, SHELVES, shelfName } from './messages.ts'
import { nowMs, type Operation, type Verb } from './records.ts'

/** A message that was not taken yet: it is sent again, the same, until it is. */
type Unsent = { readonly item: string; readonly to: readonly string[]; readonly outside: boolean }
type Doing = Omit<Operation, 'kind' | 'user' | 'endedMs' | 'outcome' | 'because'>

const RECONNECT_MS = 250
const OUTBOX_MAX = 5
const LAST_TRIES_MS = 30_000
const IDLE_ROUND_MS = 5_000
const IDLE_PATIENCE_MS = 20_000
const ANSWER_MS = 15_000

/**
 * One person at work: reads, flags, files, deletes, drafts, sends and receives, one thing after the other, and beside
 * it a connection in IDLE. What fails is tried again as a real client does.
 */
export class MailboxUser {
  readonly #person: Person
  readonly #others: readonly string[]
  readonly #gate: Gate
  readonly #pauseMs: number
  readonly #outbox: Unsent[] = []
  #session: ImapClient | undefined

  constructor(person: Person, others: readonly string[], pauseMs: number, gate: Gate) {
    this.#person = person
    this.#gate = gate
    this.#others = others
    this.#pauseMs = pauseMs
  }

  /** Works until `signal`, then tries for a while to get rid of what is still unsent. */
  async run(signal: AbortSignal): Promise<void> {
    await Promise.all([this.#work(signal), this.#listen(signal)])
  }

  async #work(signal: AbortSignal): Promise<void> {
    const { draw } = this.#person
    while (!signal.aborted) {
      await this.#gate.pass()
      const rest = this.#pauseMs * (0.5 + draw())
      await (this.#outbox.length > 0 && draw() < 0.5 ? this.#sendAgain() : this.#something())
      await delay(rest)
    }
    const deadline = performance.now() + LAST_TRIES_MS
    while (this.#outbox.length > 0 && performance.now() < deadline) {
      await this.#sendAgain()
      if (this.#outbox.length > 0) await delay(RECONNECT_MS)
    }
    await this.#session?.logout()
  }

  #something(): Promise<void> {
    const chance = this.#person.draw()
    if (chance < 0.3) return this.#sendNew()
    if (chance < 0.38) return this.#fetchByPop3()
    if (chance < 0.5) return this.#inSession('append', (session) => this.#append(session))
    if (chance < 0.65) return this.#inSession('flag', (session) => this.#flag(session))
    if (chance < 0.78) return this.#inSession('move', (session) => this.#move(session))
    if (chance < 0.85) return this.#inSession('delete', (session) => this.#delete(session))
    return this.#inSession('read', (session) => this.#read(session))
  }

  async #inSession(verb: Verb, act: (session: ImapClient) => Promise<void>): Promise<void> {
    this.#session ??= await openImap(this.#person)
    if (this.#session === undefined) return delay(RECONNECT_MS)
    try {
      await act(this.#session)
    } catch (error: unknown) {
      this.#session.close()
      this.#session = undefined
      this.#broken(`imap ${verb}`, error)
    }
  }

  /** What a broken session means: nothing if the network or a server did it, else it is a mistake of ours. */
  #broken(service: string, error: unknown): void {
    const { user, write } = this.#person
    if (error instanceof ConnectionLost)
      write({ kind: 'lost', user, service, atMs: nowMs(), because: error.because })
    else if (!isRefusal(error)) throw error
  }

  /** Does it and records how it ended; rethrows, so that the session is given up. */
  async #doing(what: Doing, act: () => Promise<boolean>): Promise<void> {
    const { user, write } = this.#person
    const operation = { kind: 'operation', user, ...what } as const
    try {
      const done = await act()
      write({ ...operation, endedMs: nowMs(), outcome: done ? 'ok' : 'fail' })
    } catch (error: unknown) {
      const outcome = error instanceof ConnectionLost ? 'unknown' : 'fail'
      const because = error instanceof Error ? error.message : String(error)
      write({ ...operation, endedMs: nowMs(), outcome, because })
      throw error
    }
  }

  async #append(session: ImapClient): Promise<void> {
    const { user } = this.#person
    const item = newItem(user)
    const content = Buffer.from(letter(item, addressOf(user), [addressOf('later')], new Date()))
    const what = { verb: 'append', item, folder: 'Drafts', startedMs: nowMs() } as const
    await this.#doing(what, async () => {
      const { status } = await session.command('APPEND Drafts (\\Draft)', content, ANSWER_MS)
      return status === 'OK'
    })
  }

  async #flag(session: ImapClient): Promise<void> {
    const chosen = await this.#choose(session)
    if (chosen === undefined) return
    const flag = pick(this.#person.draw, ['\\Seen', '\\Flagged', '\\Answered', '$Label1', 'Todo'])
    const what = { verb: 'flag', item: chosen.item, flag, startedMs: nowMs() } as const
    await this.#doing(what, async () => {
      const { status } = await session.command(`UID STORE ${chosen.uid} +FLAGS.SILENT (${flag})`)
      return status === 'OK'
    })
  }

  async #move(session: ImapClient): Promise<void> {
    const chosen = await this.#choose(session)
    if (chosen === undefined) return
    const shelf = pick(this.#person.draw, SHELVES)
    const folder = shelfName(shelf)
    const what = { verb: 'move', item: chosen.item, folder, startedMs: nowMs() } as const
    await this.#doing(what, async () => {
      const moved = await session.command(`UID MOVE ${chosen.uid} ${quoted(shelf)}`)
      const text = [moved.text, ...moved.untagged.map((one) => one.text)].join(' ')
      return moved.status === 'OK' && text.includes('COPYUID')
    })
  }

  async #delete(session: ImapClient): Promise<void> {
    const chosen = await this.#choose(session)
    if (chosen === undefined) return
    const what = { verb: 'delete', item: chosen.item, startedMs: nowMs() } as const
    await this.#doing(what, async () => {
      await session.ok(`UID STORE ${chosen.uid} +FLAGS.SILENT (\\Deleted)`)
      const expunged = await session.ok(`UID EXPUNGE ${chosen.uid}`)
      return expunged.some(({ text }) => text.endsWith(' EXPUNGE'))
    })
  }

  async #read(session: ImapClient): Promise<void> {
    const what = { verb: 'read', startedMs: nowMs() } as const
    await this.#doing(what, async () => {
      const chosen = await this.#choose(session)
      if (chosen === undefined) return true
      const fetched = await session.ok(`UID FETCH ${chosen.uid} (UID BODY.PEEK[])`)
      return fetched.some(({ literals }) => literals[0]?.includes(chosen.item) === true)
    })
  }

  /** A message of the INBOX that has a Message-ID. */
  async #choose(session: ImapClient): Promise<{ uid: number; item: string } | undefined> {
    this.#noteUidValidity(await session.ok('SELECT INBOX'))
    const [found] = await session.ok('UID SEARCH NOT DELETED')
    const uids = found?.text.split(' ').slice(2).map(Number) ?? []
    if (uids.length === 0) return undefined
    const uid = pick(this.#person.draw, uids)
    const header = `UID FETCH ${uid} (BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)])`
    const literal = (await session.ok(header)).flatMap(({ literals }) => literals)[0]
    const item = /<[^>]+>/.exec(literal?.toString('latin1') ?? '')?.[0]
    return item === undefined ? undefined : { uid, item }
  }

  #noteUidValidity(selected: readonly ImapResponse[]): void {
    const { user, write } = this.#person
    for (const { text } of selected) {
      const value = /\[UIDVALIDITY (\d+)\]/.exec(text)?.[1]
      if (value === undefined) continue
      write({ kind: 'uid-validity', user, folder: 'INBOX', value: Number(value), atMs: nowMs() })
    }
  }

  async #sendNew(): Promise<void> {
    const { user, draw } = this.#person
    if (this.#outbox.length >= OUTBOX_MAX) return this.#sendAgain()
    const first = pick(draw, this.#others)
    const second = pick(draw, this.#others)
    const to = draw() < 0.2 && second !== first ? [first, second] : [first]
    await this.#send({ item: newItem(user), to, outside: draw() < 0.4 })
  }

  async #sendAgain(): Promise<void> {
    const next = this.#outbox.shift()
    if (next !== undefined) await this.#send(next)
  }

  /** Sends it by the user's own submission, or as a server from outside would. */
  async #send(unsent: Unsent): Promise<void> {
    const { item, to, outside } = unsent
    this.#outbox.push(unsent)
    const client = await (outside ? openSmtp(this.#person) : openSubmission(this.#person))
    if (client === undefined) return delay(RECONNECT_MS)
    try {
      const what = { verb: 'send', item, to, startedMs: nowMs() } as const
      if (await this.#submit(client, what)) this.#outbox.splice(this.#outbox.indexOf(unsent), 1)
    } finally {
      client.close()
    }
  }

  async #submit(client: SmtpClient, what: Doing): Promise<boolean> {
    const { user, write } = this.#person
    const [from, to] = [addressOf(user), (what.to ?? []).map(addressOf)]
    const operation = { kind: 'operation', user, ...what } as const
    try {
      await client.send(from, to, letter(what.item ?? '', from, to, new Date()))
      write({ ...operation, endedMs: nowMs(), outcome: 'ok' })
      return true
    } catch (error: unknown) {
      this.#broken('smtp', error)
      const because = error instanceof Error ? error.message : String(error)
      const outcome = client.undecided ? 'unknown' : 'fail'
      write({ ...operation, endedMs: nowMs(), outcome, because })
      return false
    }
  }

  async #fetchByPop3(): Promise<void> {
    const client = await openPop3(this.#person)
    if (client === undefined) return delay(RECONNECT_MS)
    try {
      await this.#doing({ verb: 'pop3', startedMs: nowMs() }, async () => {
        const ids = await client.uidl()
        await client.quit()
        return new Set(ids).size === ids.length
      })
    } catch (error: unknown) {
      this.#broken('pop3', error)
    } finally {
      client.close()
    }
  }

  async #listen(signal: AbortSignal): Promise<void> {
    const { user, write } = this.#person
    let session: ImapClient | undefined
    while (!signal.aborted) {
      try {
        session ??= await openImap(this.#person)
        if (session === undefined) {
          await delay(RECONNECT_MS)
          continue
        }
        this.#noteUidValidity(await session.ok('SELECT INBOX'))
        while (!signal.aborted) {
          const round = AbortSignal.any([signal, AbortSignal.timeout(IDLE_ROUND_MS)])
          await session.idle(
            () => write({ kind: 'heard', user, atMs: nowMs() }),
            round,
            IDLE_PATIENCE_MS,
          )
        }
      } catch (error: unknown) {
        session?.close()
        session = undefined
        this.#broken('imap idle', error)
      }
    }
    await session?.logout()
  }
}
