import { ConnectionLost, LineSocket, type Target } from './line-socket.ts'

/** A response: its text with `{n}` where a literal of n bytes stood, and the literals in their order. */
export type ImapResponse = { readonly text: string; readonly literals: readonly Buffer[] }
export type Completion = {
  readonly status: 'OK' | 'NO' | 'BAD'
  readonly text: string
  readonly untagged: readonly ImapResponse[]
}

/** The server refused a command. `authentication` when it said that the password is wrong. */
export class ImapRefused extends Error {
  override readonly name = 'ImapRefused'
  readonly authentication: boolean

  constructor(command: string, { status, text }: Completion) {
    super(`${command.split(' ')[0]}: ${status} ${text}`)
    this.authentication = text.includes('[AUTHENTICATIONFAILED]')
  }
}

const ANSWER_MS = 30_000
const UNTAGGED_MAX = 1_000_000

/**
 * The lab's own IMAP client (RFC 9051, as much as a witness needs): it shares no code with the appliance, so it cannot
 * share its mistakes. One command at a time, except `pipeline`.
 */
export class ImapClient {
  readonly greeting: string
  readonly #line: LineSocket
  #tag = 0

  private constructor(line: LineSocket, greeting: string) {
    this.#line = line
    this.greeting = greeting
  }

  /** Connects and hears the greeting. @throws {ConnectionLost} */
  static async open(target: Target, patienceMs = ANSWER_MS): Promise<ImapClient> {
    const line = await LineSocket.open(target, patienceMs)
    try {
      return new ImapClient(line, await line.readLine(patienceMs))
    } catch (error: unknown) {
      line.close()
      throw error
    }
  }

  get certificate(): string | undefined {
    return this.#line.certificate
  }

  /** @throws {ConnectionLost} @throws {ImapRefused} */
  async startTls(): Promise<void> {
    await this.ok('STARTTLS')
    await this.#line.startTls()
  }

  /** @throws {ConnectionLost} @throws {ImapRefused} whose `authentication` says whether the password was called wrong */
  async login(user: string, password: string): Promise<void> {
    await this.ok(`LOGIN ${quoted(user)} ${quoted(password)}`)
  }

  /** A command that must succeed; its untagged responses. @throws {ConnectionLost} @throws {ImapRefused} */
  async ok(command: string, literal?: Buffer): Promise<readonly ImapResponse[]> {
    const completion = await this.command(command, literal)
    if (completion.status !== 'OK') throw new ImapRefused(command, completion)
    return completion.untagged
  }

  /** A command and its completion. `literal` is its last argument, sent without waiting (LITERAL+, RFC 7888). */
  command(command: string, literal?: Buffer, patienceMs = ANSWER_MS): Promise<Completion> {
    return this.#completion(this.#send(command, literal), patienceMs)
  }

  /** Many commands at once, answered in order. @throws {ConnectionLost} */
  async pipeline(commands: Iterable<{ command: string; literal?: Buffer }>): Promise<Completion[]> {
    const tags = Array.from(commands, ({ command, literal }) => this.#send(command, literal))
    const completions: Completion[] = []
    for (const tag of tags) completions.push(await this.#completion(tag, ANSWER_MS))
    return completions
  }

  /**
   * Waits in IDLE (RFC 2177): `on` hears what the server says unasked, until `signal` ends it. @throws {ConnectionLost}
   */
  async idle(on: (text: string) => void, signal: AbortSignal, patienceMs: number): Promise<void> {
    const tag = this.#send('IDLE')
    const done = () => this.#line.write('DONE\r\n')
    for (;;) {
      const { text } = await this.#response(patienceMs)
      if (text.startsWith(`${tag} `)) break
      if (!text.startsWith('+')) on(text)
      else if (signal.aborted) done()
      else signal.addEventListener('abort', done, { once: true })
    }
    signal.removeEventListener('abort', done)
  }

  /** Says goodbye and hears it, as far as the connection lets us. */
  async logout(): Promise<void> {
    try {
      await this.command('LOGOUT', undefined, 2_000)
    } catch (error: unknown) {
      if (!(error instanceof ConnectionLost)) throw error
    } finally {
      this.close()
    }
  }

  close(): void {
    this.#line.close()
  }

  #send(command: string, literal?: Buffer): string {
    this.#tag += 1
    const tag = `a${this.#tag}`
    if (literal === undefined) this.#line.write(`${tag} ${command}\r\n`)
    else {
      const head = Buffer.from(`${tag} ${command} {${literal.length}+}\r\n`, 'latin1')
      this.#line.write(Buffer.concat([head, literal, Buffer.from('\r\n')]))
    }
    return tag
  }

  async #completion(tag: string, patienceMs: number): Promise<Completion> {
    const untagged: ImapResponse[] = []
    while (untagged.length < UNTAGGED_MAX) {
      const response = await this.#response(patienceMs)
      const [first = '', status = '', ...rest] = response.text.split(' ')
      if (first !== tag) untagged.push(response)
      else if (status === 'OK' || status === 'NO' || status === 'BAD')
        return { status, text: rest.join(' '), untagged }
      else break
    }
    throw new ConnectionLost('closed', 'the server does not speak IMAP')
  }

  async #response(patienceMs: number): Promise<ImapResponse> {
    const literals: Buffer[] = []
    let text = await this.#line.readLine(patienceMs)
    for (;;) {
      const literal = /\{(\d+)\}$/.exec(text)
      if (literal === null) return { text, literals }
      literals.push(await this.#line.readBytes(Number(literal[1]), patienceMs))
      text += await this.#line.readLine(patienceMs)
    }
  }
}

/** A quoted string (RFC 9051 §4.3). */
export const quoted = (text: string): string => `"${text.replace(/[\\"]/g, '\\$&')}"`
