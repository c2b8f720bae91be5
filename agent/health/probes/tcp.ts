import { connect, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'

/**
 * Why production was not heard. `refused`: its kernel said no. `silent`: nothing came. `reset`: it hung up.
 * `garbled`: something came that is not this protocol, or not what was asked for. `not-asked`: the appliance itself
 * could not ask (no route, no address, no descriptor), which says nothing about production.
 */
export type Unheard = 'refused' | 'silent' | 'reset' | 'garbled' | 'not-asked'

/** Production was asked, or should have been, and was not heard. */
export class NotHeard extends Error {
  override readonly name = 'NotHeard'
  readonly because: Unheard

  constructor(because: Unheard, said: string, cause?: unknown) {
    super(said, { cause })
    this.because = because
  }
}

export type Endpoint = {
  readonly host: string
  readonly port: number
  readonly tls: 'none' | 'starttls' | 'implicit'
  /** Sent as the TLS server name. */
  readonly hostname: string
}

const LINE_BYTES_MAX = 8_192
/** What production may say between two commands of ours. */
const SAID_BYTES_MAX = 65_536
/** How long production may take to say good-bye to a connection that we have done with. */
const FAREWELL_MS = 1_000

/**
 * A connection to a line-based service. It never outlives its signal, holds a bounded number of bytes, and keeps the
 * reason why it ended.
 */
export class Line {
  readonly endpoint: Endpoint
  readonly #signal: AbortSignal
  readonly #abort = () => this.#end(new NotHeard('silent', 'no answer'))
  #socket: Socket
  #lines: string[] = []
  #rest = ''
  #saidBytes = 0
  #ended: NotHeard | undefined
  #wake: () => void = () => {}
  #over: () => void = () => {}
  /** Resolves when the connection is over, whoever ended it. */
  readonly over = new Promise<void>((resolve) => {
    this.#over = resolve
  })

  private constructor(endpoint: Endpoint, signal: AbortSignal) {
    this.endpoint = endpoint
    this.#signal = signal
    const { host, port } = endpoint
    this.#socket = connect({ host, port, noDelay: true })
    this.#listen(this.#socket)
    if (signal.aborted) this.#abort()
    else signal.addEventListener('abort', this.#abort, { once: true })
  }

  /** Connects, by TLS where that is implicit. `accepted` hears when the kernels have shaken hands. @throws {NotHeard} */
  static async open(
    endpoint: Endpoint,
    signal: AbortSignal,
    accepted: () => void = () => {},
  ): Promise<Line> {
    const line = new Line(endpoint, signal)
    await line.#happened('connect')
    accepted()
    if (endpoint.tls === 'implicit') await line.#secure()
    return line
  }

  /** Whether what is said here cannot be overheard. */
  get secure(): boolean {
    return 'encrypted' in this.#socket
  }

  /** The address we speak from. */
  get localAddress(): string {
    return this.#socket.localAddress ?? '127.0.0.1'
  }

  get ended(): NotHeard | undefined {
    return this.#ended
  }

  /** The next line without its CRLF, as latin-1. @throws {NotHeard} */
  async next(): Promise<string> {
    for (;;) {
      const line = this.#lines.shift()
      if (line !== undefined) return line
      if (this.#ended !== undefined) throw this.#ended
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
  }

  send(command: string): void {
    this.#saidBytes = 0
    if (this.#ended === undefined) this.#socket.write(`${command}\r\n`, 'latin1')
  }

  /** Goes on under TLS, after production has agreed to it. @throws {NotHeard} */
  async startTls(): Promise<void> {
    if (this.#rest !== '' || this.#lines.length > 0)
      this.#end(new NotHeard('garbled', 'more was said in clear after STARTTLS was accepted'))
    await this.#secure()
  }

  /** Ends the connection, with a farewell where the protocol knows one. */
  close(farewell?: string): void {
    if (this.#ended !== undefined) return
    const socket = this.#socket
    this.#finish(new NotHeard('silent', 'given up'))
    if (farewell === undefined) {
      socket.destroy()
      return
    }
    socket.removeAllListeners('data').resume()
    socket.setTimeout(FAREWELL_MS, () => socket.destroy())
    socket.end(`${farewell}\r\n`)
  }

  async #secure(): Promise<void> {
    if (this.#ended !== undefined) throw this.#ended
    const raw = this.#socket.removeAllListeners()
    // Whether users would trust the certificate is not this connection's business: it asks whether somebody answers.
    this.#socket = connectTls({
      socket: raw,
      servername: this.endpoint.hostname,
      rejectUnauthorized: false,
    })
    this.#listen(this.#socket)
    await this.#happened('secureConnect')
  }

  #happened(event: 'connect' | 'secureConnect'): Promise<void> {
    return new Promise((resolve, reject) => {
      const settle = () => (this.#ended === undefined ? resolve() : reject(this.#ended))
      this.#socket.once(event, settle)
      this.#wake = settle
      if (this.#ended !== undefined) settle()
    })
  }

  #listen(socket: Socket): void {
    socket.on('data', (chunk) => this.#hear(chunk.toString('latin1')))
    socket.on('error', (error) => this.#end(reasonOf(error)))
    socket.on('end', () => this.#end(new NotHeard('reset', 'the connection was ended')))
    socket.on('close', () => this.#end(new NotHeard('reset', 'the connection was ended')))
  }

  #hear(text: string): void {
    this.#saidBytes += text.length
    const lines = (this.#rest + text).split('\n')
    this.#rest = lines.pop() ?? ''
    for (const line of lines) this.#lines.push(line.replace(/\r$/, ''))
    if (this.#rest.length > LINE_BYTES_MAX || this.#saidBytes > SAID_BYTES_MAX)
      this.#end(new NotHeard('garbled', 'more was said than the protocol has words'))
    this.#wake()
  }

  #end(reason: NotHeard): void {
    if (this.#ended === undefined) this.#finish(reason)
    this.#socket.destroy()
  }

  #finish(reason: NotHeard): void {
    this.#ended = reason
    this.#signal.removeEventListener('abort', this.#abort)
    this.#wake()
    this.#over()
  }
}

const REASONS: Readonly<Record<string, Unheard>> = {
  ECONNREFUSED: 'refused',
  ECONNRESET: 'reset',
  EPIPE: 'reset',
  ETIMEDOUT: 'silent',
  // Nobody answers for production's address on the second network (ARP, neighbour discovery).
  EHOSTUNREACH: 'silent',
  EHOSTDOWN: 'silent',
  EPROTO: 'garbled',
}

/** What a socket's error says about the other side. */
export function reasonOf(error: Error): NotHeard {
  const code = 'code' in error ? String(error.code) : ''
  const because = REASONS[code] ?? (/^ERR_(SSL|TLS)/.test(code) ? 'garbled' : 'not-asked')
  return new NotHeard(because, error.message, error)
}
