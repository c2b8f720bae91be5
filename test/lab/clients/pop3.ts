import { LineSocket, type Target } from './line-socket.ts'

/** The server said -ERR. `authentication` when it was about the password and not about the moment (RFC 3206). */
export class Pop3Refused extends Error {
  override readonly name = 'Pop3Refused'
  readonly authentication: boolean

  constructor(during: string, text: string) {
    super(`${during}: ${text}`)
    this.authentication = during === 'PASS' && text.includes('[AUTH]')
  }
}

const LINES_MAX = 100_000

/** The lab's own POP3 client (RFC 1939, RFC 2595). */
export class Pop3Client {
  readonly #line: LineSocket

  private constructor(line: LineSocket) {
    this.#line = line
  }

  /** Connects and hears the greeting. @throws {ConnectionLost} @throws {Pop3Refused} */
  static async open(target: Target, patienceMs: number): Promise<Pop3Client> {
    const client = new Pop3Client(await LineSocket.open(target, patienceMs))
    try {
      await client.#expect('greeting')
      return client
    } catch (error: unknown) {
      client.close()
      throw error
    }
  }

  get certificate(): string | undefined {
    return this.#line.certificate
  }

  async startTls(): Promise<void> {
    await this.#ask('STLS')
    await this.#line.startTls()
  }

  async login(user: string, password: string): Promise<void> {
    await this.#ask(`USER ${user}`)
    await this.#ask(`PASS ${password}`)
  }

  /** The unique id of each message. */
  async uidl(): Promise<string[]> {
    await this.#ask('UIDL')
    const ids: string[] = []
    while (ids.length < LINES_MAX) {
      const line = await this.#line.readLine()
      if (line === '.') break
      ids.push(line.split(' ')[1] ?? '')
    }
    return ids
  }

  async quit(): Promise<void> {
    await this.#ask('QUIT')
    this.close()
  }

  close(): void {
    this.#line.close()
  }

  #ask(command: string): Promise<void> {
    this.#line.write(`${command}\r\n`)
    return this.#expect(command.split(' ', 1)[0] ?? command)
  }

  async #expect(during: string): Promise<void> {
    const line = await this.#line.readLine()
    if (!line.startsWith('+OK')) throw new Pop3Refused(during, line)
  }
}
