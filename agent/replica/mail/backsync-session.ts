import type { Socket } from 'node:net'
import type { ImapFlow } from 'imapflow'
import { PeerUnreachable } from './imap.ts'

/** A line of an answer. Where a literal stood the text has its `{size}`, and the bytes are in `literals`, in order. */
export type Line = { readonly text: string; readonly literals: readonly Buffer[] }

/** The tagged OK: its response code, such as `APPENDUID 1 5`, and the untagged lines that came before it. */
export type Answer = { readonly code: string; readonly lines: readonly Line[] }

/** A command that the server answered with NO or BAD. */
export class CommandRefused extends Error {
  override readonly name = 'CommandRefused'
  readonly peer: string
  /** What the server said after the tag: `NO [OVERQUOTA] …`. */
  readonly answer: string

  constructor(peer: string, command: string, answer: string) {
    super(`${peer} refused ${command}: ${answer}`)
    this.peer = peer
    this.answer = answer
  }
}

type Pending = {
  readonly command: string
  readonly each: ((line: Line) => void) | undefined
  readonly lines: Line[]
  readonly resolve: (answer: Answer) => void
  readonly reject: (error: Error) => void
}

/** Longest silence while a command is under way. */
const SILENCE_MS = 60_000
const LINE_BYTES_MAX = 8 * 1024 * 1024
/** Above any message that the appliance handles. */
const LITERAL_BYTES_MAX = 128 * 1024 * 1024
const LOGOUT_MS = 1_000

/**
 * IMAP with several commands under way at once, which ImapFlow does not do, over a connection that ImapFlow opened.
 * The server runs them in order, but untagged lines are given to the oldest command under way, although some servers
 * send those of the next one before its tagged line: so ask for lines only with one command at a time.
 */
export class ImapSession {
  readonly peer: string
  readonly capabilities: ReadonlySet<string>
  readonly #socket: Socket
  readonly #pending = new Map<string, Pending>()
  #tags = 0
  #failure: PeerUnreachable | undefined
  #buffers: Buffer[] = []
  #buffered = 0
  #wanted = 0
  #text = ''
  #literals: Buffer[] = []
  #goAhead: (() => void) | undefined
  #turn: Promise<void> = Promise.resolve()

  constructor(client: ImapFlow, peer: string) {
    this.peer = peer
    this.capabilities = new Set([...client.capabilities.keys()].map((key) => key.toUpperCase()))
    const { socket } = client.unbind()
    this.#socket = socket as Socket
    this.#socket.setNoDelay(true)
    this.#socket.on('error', (error) => this.#fail(error.message))
    this.#socket.on('close', () => this.#fail('the connection was closed'))
    this.#socket.setTimeout(SILENCE_MS, () => {
      if (this.#pending.size > 0) this.#fail(`silent for ${SILENCE_MS} ms`)
    })
    this.#socket.on('data', (chunk: Buffer) => this.#receive(chunk))
    // ImapFlow's parser was unpiped, which pauses the stream.
    this.#socket.resume()
  }

  /**
   * Sends one command at once; a Buffer becomes a literal. `each` takes the untagged lines as they come, instead of the
   * answer. @throws {CommandRefused} {PeerUnreachable}
   */
  command(
    parts: string | readonly (string | Buffer)[],
    each?: (line: Line) => void,
  ): Promise<Answer> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure)
    this.#tags += 1
    const tag = `u${this.#tags}`
    const list = typeof parts === 'string' ? [parts] : parts
    const answer = new Promise<Answer>((resolve, reject) => {
      const command = String(list[0]).split(' ').slice(0, 3).join(' ')
      this.#pending.set(tag, { command, each, lines: [], resolve, reject })
    })
    if (this.capabilities.has('LITERAL+') || !list.some((part) => typeof part !== 'string'))
      this.#turn = this.#turn.then(() => this.#write(tag, list))
    else this.#turn = this.#turn.then(() => this.#writeInTurns(tag, list))
    return answer
  }

  /** Ends the session; never rejects. */
  async close(): Promise<void> {
    const goodbye = this.command('LOGOUT').catch(() => {})
    const impatient = setTimeout(() => this.#socket.destroy(), LOGOUT_MS)
    await goodbye
    clearTimeout(impatient)
    this.#socket.destroy()
  }

  #write(tag: string, parts: readonly (string | Buffer)[]): void {
    if (this.#failure !== undefined) return
    this.#socket.cork()
    let text = `${tag} `
    for (const part of parts) {
      if (typeof part === 'string') {
        text += part
        continue
      }
      this.#socket.write(`${text}{${part.length}+}\r\n`, 'latin1')
      this.#socket.write(part)
      text = ''
    }
    this.#socket.write(`${text}\r\n`, 'latin1')
    this.#socket.uncork()
  }

  /** Without LITERAL+ (RFC 7888) the server says when a literal may come. */
  async #writeInTurns(tag: string, parts: readonly (string | Buffer)[]): Promise<void> {
    let text = `${tag} `
    for (const part of parts) {
      if (typeof part === 'string') {
        text += part
        continue
      }
      const goAhead = new Promise<void>((resolve) => {
        this.#goAhead = resolve
      })
      if (this.#failure !== undefined) return
      this.#socket.write(`${text}{${part.length}}\r\n`, 'latin1')
      await goAhead
      if (!this.#pending.has(tag)) return
      this.#socket.write(part)
      text = ''
    }
    if (this.#failure === undefined) this.#socket.write(`${text}\r\n`, 'latin1')
  }

  #fail(because: string): void {
    this.#failure ??= new PeerUnreachable(this.peer, because)
    for (const { reject } of this.#pending.values()) reject(this.#failure)
    this.#pending.clear()
    this.#goAhead?.()
    this.#socket.destroy()
  }

  #receive(chunk: Buffer): void {
    this.#buffers.push(chunk)
    this.#buffered += chunk.length
    if (this.#wanted > this.#buffered) return
    let data = this.#buffers.length === 1 ? chunk : Buffer.concat(this.#buffers)
    while (this.#failure === undefined) {
      if (this.#wanted > 0) {
        if (data.length < this.#wanted) break
        this.#literals.push(Buffer.from(data.subarray(0, this.#wanted)))
        data = data.subarray(this.#wanted)
        this.#wanted = 0
      }
      const end = data.indexOf('\r\n')
      if (end === -1) break
      const piece = data.toString('latin1', 0, end)
      data = data.subarray(end + 2)
      this.#lineEnds(piece)
    }
    this.#buffers = data.length === 0 ? [] : [data]
    this.#buffered = data.length
    if (this.#wanted === 0 && data.length > LINE_BYTES_MAX) this.#fail('sent an endless line')
  }

  #lineEnds(piece: string): void {
    this.#text += piece
    const size = piece.endsWith('}') ? /\{(\d+)\}$/.exec(piece)?.[1] : undefined
    if (size !== undefined) {
      this.#wanted = Number(size)
      if (this.#wanted === 0) this.#literals.push(Buffer.alloc(0))
      if (this.#wanted > LITERAL_BYTES_MAX) this.#fail(`sent a literal of ${size} bytes`)
      return
    }
    const line = { text: this.#text, literals: this.#literals }
    this.#text = ''
    this.#literals = []
    this.#take(line)
  }

  #take(line: Line): void {
    if (line.text.startsWith('* ')) {
      const [oldest] = this.#pending.values()
      if (oldest?.each !== undefined) oldest.each(line)
      else oldest?.lines.push(line)
      return
    }
    if (line.text.startsWith('+')) {
      this.#goAhead?.()
      return
    }
    const [, tag = '', status = '', text = ''] = /^(u\d+) (\w+) ?(.*)$/s.exec(line.text) ?? []
    const pending = this.#pending.get(tag)
    if (pending === undefined) {
      this.#fail('sent something else than IMAP')
      return
    }
    this.#pending.delete(tag)
    // A literal that was refused in advance is not waited for any longer.
    this.#goAhead?.()
    if (status === 'OK')
      pending.resolve({ code: /^\[([^\]]*)\]/.exec(text)?.[1] ?? '', lines: pending.lines })
    else pending.reject(new CommandRefused(this.peer, pending.command, `${status} ${text}`))
  }
}
