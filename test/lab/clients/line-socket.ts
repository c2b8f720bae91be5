import { createConnection, type Socket } from 'node:net'
import { connect as connectTls, TLSSocket } from 'node:tls'

/** Where and how to connect. `ca` is the PEM text that must vouch for the server; `servername` the name it must have. */
export type Target = {
  readonly host: string
  readonly port: number
  readonly tls?: 'implicit' | 'none'
  readonly ca?: string
  readonly servername?: string
  readonly localAddress?: string
}

export type Loss = 'refused' | 'unreachable' | 'reset' | 'closed' | 'timeout' | 'tls'

/** The connection ended before an answer came, or (`NotConnected`) was never made. */
export class ConnectionLost extends Error {
  override readonly name: string = 'ConnectionLost'
  readonly because: Loss

  constructor(because: Loss, cause?: unknown) {
    super(`connection lost: ${because}`, { cause })
    this.because = because
  }
}

/** Nobody took the connection: refused, unreachable, or silence. */
export class NotConnected extends ConnectionLost {
  override readonly name = 'NotConnected'
}

const LINE_BYTES_MAX = 1_048_576
const PATIENCE_MS = 30_000

/** A TCP or TLS connection read by lines and by counted bytes. Lines are latin-1: bytes pass unharmed. */
export class LineSocket {
  #socket: Socket
  #chunks: Buffer[] = []
  #bytes = 0
  #lost: ConnectionLost | undefined
  #wake: (() => void) | undefined
  readonly #target: Target

  private constructor(socket: Socket, target: Target) {
    this.#socket = socket
    this.#target = target
    this.#listen()
  }

  /** @throws {ConnectionLost} */
  static async open(target: Target, patienceMs = PATIENCE_MS): Promise<LineSocket> {
    const { host, port, localAddress } = target
    const socket = createConnection({
      host,
      port,
      ...(localAddress === undefined ? {} : { localAddress }),
      noDelay: true,
    })
    await ready(socket, 'connect', patienceMs).catch((error: unknown) => {
      throw error instanceof ConnectionLost ? new NotConnected(error.because, error) : error
    })
    const line = new LineSocket(socket, target)
    if (target.tls === 'implicit') await line.startTls(patienceMs)
    return line
  }

  /** Turns the plain connection into a verified one. @throws {ConnectionLost} */
  async startTls(patienceMs = PATIENCE_MS): Promise<void> {
    this.#socket.removeAllListeners()
    const { ca, servername } = this.#target
    const secured = connectTls({
      socket: this.#socket,
      ...(ca === undefined ? {} : { ca }),
      ...(servername === undefined ? {} : { servername }),
    })
    this.#socket = secured
    await ready(secured, 'secureConnect', patienceMs)
    this.#listen()
  }

  /** SHA-256 of the server's certificate; `undefined` on a plain connection. */
  get certificate(): string | undefined {
    return this.#socket instanceof TLSSocket
      ? this.#socket.getPeerCertificate().fingerprint256
      : undefined
  }

  /** The reason why the connection is no more. */
  get lost(): ConnectionLost | undefined {
    return this.#lost
  }

  write(data: string | Buffer): void {
    if (typeof data === 'string') this.#socket.write(data, 'latin1')
    else this.#socket.write(data)
  }

  /** A line without its CRLF. @throws {ConnectionLost} */
  async readLine(patienceMs = PATIENCE_MS): Promise<string> {
    const deadline = performance.now() + patienceMs
    for (let searched = 0; ; ) {
      const held = this.#held()
      const end = held.indexOf(0x0a, searched)
      if (end >= 0)
        return this.#take(end + 1)
          .toString('latin1')
          .replace(/\r?\n$/, '')
      if (held.length > LINE_BYTES_MAX) this.#fail(new ConnectionLost('closed', 'endless line'))
      searched = held.length
      await this.#more(deadline)
    }
  }

  /** @throws {ConnectionLost} */
  async readBytes(count: number, patienceMs = PATIENCE_MS): Promise<Buffer> {
    const deadline = performance.now() + patienceMs
    while (this.#bytes < count) await this.#more(deadline)
    return this.#take(count)
  }

  close(): void {
    this.#fail(new ConnectionLost('closed'))
  }

  #held(): Buffer {
    if (this.#chunks.length > 1) this.#chunks = [Buffer.concat(this.#chunks)]
    return this.#chunks[0] ?? Buffer.alloc(0)
  }

  #take(count: number): Buffer {
    const held = this.#held()
    const rest = held.subarray(count)
    this.#chunks = rest.length === 0 ? [] : [rest]
    this.#bytes = rest.length
    return held.subarray(0, count)
  }

  async #more(deadline: number): Promise<void> {
    if (this.#lost !== undefined) throw this.#lost
    const arrived = new Promise<void>((resolve) => {
      this.#wake = resolve
    })
    const impatient = setTimeout(
      () => this.#fail(new ConnectionLost('timeout')),
      Math.max(0, deadline - performance.now()),
    )
    await arrived
    clearTimeout(impatient)
  }

  #listen(): void {
    this.#socket.on('data', (chunk: Buffer) => {
      this.#chunks.push(chunk)
      this.#bytes += chunk.length
      this.#wake?.()
    })
    this.#socket.on('error', (error) => this.#fail(lossOf(error)))
    this.#socket.on('close', () => this.#fail(new ConnectionLost('closed')))
  }

  #fail(loss: ConnectionLost): void {
    this.#lost ??= loss
    this.#socket.destroy()
    this.#wake?.()
  }
}

function ready(socket: Socket, event: 'connect' | 'secureConnect', patienceMs: number) {
  return new Promise<void>((resolve, reject) => {
    const fail = (loss: ConnectionLost) => {
      clearTimeout(impatient)
      socket.removeAllListeners()
      socket.on('error', () => socket.destroy())
      socket.destroy()
      reject(loss)
    }
    const impatient = setTimeout(() => fail(new ConnectionLost('timeout')), patienceMs)
    socket.once('error', (error) => fail(lossOf(error)))
    socket.once('close', () => fail(new ConnectionLost('closed')))
    socket.once(event, () => {
      clearTimeout(impatient)
      socket.removeAllListeners()
      resolve()
    })
  })
}

const LOSSES: Readonly<Record<string, Loss>> = {
  ECONNREFUSED: 'refused',
  ECONNRESET: 'reset',
  EPIPE: 'reset',
  ETIMEDOUT: 'timeout',
  EHOSTUNREACH: 'unreachable',
  ENETUNREACH: 'unreachable',
}

const lossOf = (error: Error): ConnectionLost => {
  const code = 'code' in error ? String(error.code) : ''
  return new ConnectionLost(LOSSES[code] ?? 'tls', error)
}
