import { hostname } from 'node:os'
import { LineSocket, type Target } from './line-socket.ts'

export type SmtpReply = { readonly code: number; readonly text: string }

/** The server said no: 4xx for now, 5xx for good (RFC 5321 §4.2.1). */
export class SmtpRefused extends Error {
  override readonly name = 'SmtpRefused'
  readonly code: number

  constructor(during: string, { code, text }: SmtpReply) {
    super(`${during}: ${code} ${text}`)
    this.code = code
  }
}

const ANSWER_MS = 30_000
const REPLY_LINES_MAX = 100

/** The lab's own SMTP client (RFC 5321): it knows exactly whether the server may have taken a message or not. */
export class SmtpClient {
  readonly #line: LineSocket
  #undecided = false

  private constructor(line: LineSocket) {
    this.#line = line
  }

  /** Connects, hears the greeting, says EHLO. @throws {ConnectionLost} @throws {SmtpRefused} */
  static async open(target: Target, patienceMs = ANSWER_MS): Promise<SmtpClient> {
    const client = new SmtpClient(await LineSocket.open(target, patienceMs))
    try {
      await client.#expect(220, 'greeting')
      await client.#hello()
      return client
    } catch (error: unknown) {
      client.close()
      throw error
    }
  }

  get certificate(): string | undefined {
    return this.#line.certificate
  }

  /** The message has been sent to its end, and no answer has come: it may have been taken. */
  get undecided(): boolean {
    return this.#undecided
  }

  async startTls(): Promise<void> {
    await this.#ask('STARTTLS', 220)
    await this.#line.startTls()
    await this.#hello()
  }

  /** @throws {SmtpRefused} with code 535 when the password is called wrong */
  async login(user: string, password: string): Promise<void> {
    const secret = Buffer.from(`\0${user}\0${password}`).toString('base64')
    await this.#ask(`AUTH PLAIN ${secret}`, 235)
  }

  /** Answers when the server has taken the message. @throws {ConnectionLost} see `undecided` @throws {SmtpRefused} */
  async send(from: string, to: readonly string[], content: string): Promise<void> {
    await this.#ask(`MAIL FROM:<${from}>`, 250)
    for (const recipient of to) await this.#ask(`RCPT TO:<${recipient}>`, 250)
    await this.#ask('DATA', 354)
    this.#line.write(`${content.replace(/^\./gm, '..')}\r\n.\r\n`)
    this.#undecided = true
    await this.#expect(250, 'DATA')
    this.#undecided = false
  }

  async quit(): Promise<void> {
    await this.#ask('QUIT', 221)
    this.close()
  }

  close(): void {
    this.#line.close()
  }

  #hello(): Promise<SmtpReply> {
    return this.#ask(`EHLO ${hostname()}`, 250)
  }

  #ask(command: string, code: number): Promise<SmtpReply> {
    this.#line.write(`${command}\r\n`)
    return this.#expect(code, command.split(' ', 1)[0] ?? command)
  }

  async #expect(code: number, during: string): Promise<SmtpReply> {
    const reply = await this.#reply()
    if (reply.code === code) return reply
    this.#undecided = false
    throw new SmtpRefused(during, reply)
  }

  async #reply(): Promise<SmtpReply> {
    const lines: string[] = []
    while (lines.length < REPLY_LINES_MAX) {
      const line = await this.#line.readLine(ANSWER_MS)
      lines.push(line.slice(4))
      if (line[3] !== '-') return { code: Number(line.slice(0, 3)), text: lines.join(' ') }
    }
    return { code: 0, text: 'an endless reply' }
  }
}
