import { readFile } from 'node:fs/promises'
import { connect, type IClientOptions, type MqttClient } from 'mqtt'
import type { Problem } from '../console/status.ts'
import { type NocSettings, problemOf } from './connection-problem.ts'
import type { Message } from './telemetry.ts'

const CONNECT_MS = 10_000
const ACKNOWLEDGE_MS = 10_000
const FAREWELL_MS = 2_000
/** A connection that is silently gone is noticed after one and a half of these (MQTT 3.1.1 §3.1.2.10). */
const KEEPALIVE_S = 30

/** There is no connection to the operations centre, or no more. `problem` says what a person can do. */
export class ConnectionFailed extends Error {
  override readonly name = 'ConnectionFailed'
  readonly problem: Problem

  constructor(problem: Problem, cause: unknown) {
    super(problem.what, { cause })
    this.problem = problem
  }
}

/** One connection to the broker, from its acceptance to its end. It is never mended: a new one is made. */
export class Connection {
  readonly #client: MqttClient
  readonly #noc: NocSettings
  readonly #lost = new AbortController()
  #error: unknown

  private constructor(client: MqttClient, noc: NocSettings) {
    this.#client = client
    this.#noc = noc
  }

  /** @throws {ConnectionFailed} when the broker cannot be reached, is not the right one, or does not want us. */
  static async open(noc: NocSettings, will: Message, signal: AbortSignal): Promise<Connection> {
    const connection = new Connection(await clientFor(noc, will), noc)
    await connection.#accepted(signal)
    return connection
  }

  /** Aborted when the connection has ended, for whatever reason. */
  get lost(): AbortSignal {
    return this.#lost.signal
  }

  /** Why it ended. */
  get failure(): ConnectionFailed {
    const error = this.#error ?? new Error('the connection was closed')
    return new ConnectionFailed(problemOf(error, this.#noc), error)
  }

  /** Answers when the broker has the message. @throws {ConnectionFailed} */
  async send({ topic, payload, qos, retain }: Message): Promise<void> {
    await this.#before(ACKNOWLEDGE_MS, this.#client.publishAsync(topic, payload, { qos, retain }))
  }

  /** Sends a last message and takes leave, so that the broker does not publish the will. Never throws, takes 2 s at most. */
  async leave(message: Message): Promise<void> {
    try {
      await this.#before(
        FAREWELL_MS,
        this.send(message).then(() => this.#client.endAsync()),
      )
    } catch (error: unknown) {
      if (!(error instanceof ConnectionFailed)) throw error
    } finally {
      this.drop()
    }
  }

  /** Ends it without a word. */
  drop(): void {
    this.#client.end(true)
    this.#lost.abort()
  }

  #accepted(signal: AbortSignal): Promise<void> {
    // An error is kept for the one who waits; after that the end of the connection tells enough.
    this.#client.on('error', (error) => {
      this.#error ??= error
    })
    this.#client.stream.on('error', (error: unknown) => {
      this.#error ??= error
    })
    this.#client.once('close', () => this.#lost.abort())
    const abort = () => this.drop()
    signal.addEventListener('abort', abort, { once: true })
    if (signal.aborted) abort()
    const accepted = new Promise<void>((resolve) => this.#client.once('connect', () => resolve()))
    return this.#before(CONNECT_MS, accepted).finally(() =>
      signal.removeEventListener('abort', abort),
    )
  }

  /** What `work` answers, unless the connection ends or the time runs out before. @throws {ConnectionFailed} */
  #before<T>(ms: number, work: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const fail = (error: unknown) => {
        this.#error ??= error
        this.drop()
      }
      const late = setTimeout(() => fail(new Error(`no answer within ${ms / 1_000} s`)), ms)
      const lost = () => finish(() => reject(this.failure))
      const finish = (end: () => void) => {
        clearTimeout(late)
        this.lost.removeEventListener('abort', lost)
        end()
      }
      this.lost.addEventListener('abort', lost, { once: true })
      if (this.lost.aborted) lost()
      work.then((answer) => finish(() => resolve(answer)), fail)
    })
  }
}

/** A client that is connecting. @throws {ConnectionFailed} for files and addresses that cannot be used. */
async function clientFor(noc: NocSettings, will: Message): Promise<MqttClient> {
  try {
    // What OpenSSL cannot use is thrown here, before there is any connection.
    return connect(await optionsFor(noc, will))
  } catch (error: unknown) {
    throw error instanceof ConnectionFailed
      ? error
      : new ConnectionFailed(problemOf(error, noc), error)
  }
}

/** Certificates are read for each connection, so that a renewed one is taken up by itself. Node offers TLS 1.2 at least. */
async function optionsFor(noc: NocSettings, will: Message): Promise<IClientOptions> {
  const text = async (setting: 'caFile' | 'certificateFile' | 'keyFile') => {
    const path = noc[setting]
    if (path === undefined) return undefined
    return await readFile(path, 'utf8').catch((error: unknown) => {
      const what = `the file cannot be read: ${error instanceof Error ? error.message : error}`
      const where = `noc.${setting} (${path})`
      throw new ConnectionFailed({ what, where, todo: 'Put it there or correct the path' }, error)
    })
  }
  const [ca, cert, key] = await Promise.all([
    text('caFile'),
    text('certificateFile'),
    text('keyFile'),
  ])
  const { protocol, hostname, port } = new URL(noc.url)
  return {
    protocol: protocol === 'mqtts:' ? 'mqtts' : 'mqtt',
    host: hostname.replace(/^\[(.*)\]$/, '$1'),
    port: Number(port) || (protocol === 'mqtts:' ? 8883 : 1883),
    clientId: `understudy-${noc.id}`,
    protocolVersion: 4,
    clean: true,
    keepalive: KEEPALIVE_S,
    connectTimeout: CONNECT_MS,
    reconnectPeriod: 0,
    queueQoSZero: false,
    timerVariant: 'native',
    will: { ...will, payload: Buffer.from(will.payload) },
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
  }
}
