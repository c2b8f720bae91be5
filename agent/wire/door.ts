import { once } from 'node:events'
import type { Server, Socket } from 'node:net'
import type { Log } from '../../firmware/log.ts'
import { type Service, type ServiceName, type Settings, serviceName } from '../config.ts'
import type { Namespaces } from './plan.ts'
import { ConnectLeg, listenAllIn, SocketFailed } from './sockets.ts'

/** Who serves those who wait. */
export type Who = 'production' | 'service'

const WAITING_MAX = 4_096
/** Longer than any verdict takes; a client that is still there has not been told anything for two minutes. */
const WAIT_MS = 120_000
const CONNECT_TIMEOUT_MS = 10_000
/**
 * For so long after production was found alive, stragglers are sent to it: their port was still held. Who comes
 * later was sent here by a new suspicion.
 */
const RELEASE_MS = 5_000
const KEEP_ALIVE_MS = 600_000

type Waiting = {
  readonly service: Service
  readonly socket: Socket
  readonly impatient: NodeJS.Timeout
}
type Verdict = { readonly who: Who; readonly atMs: number }

type Parts = {
  readonly settings: Settings
  readonly namespaces: Namespaces
  readonly log: Log
  /** Serves a client here; the socket is the receiver's from then on. */
  readonly connectService: (service: Service, client: Socket) => Promise<void>
}

/**
 * While a service is only suspected, users' new connections are accepted here and wait: nobody is refused. The
 * verdict sends them on, to production (under the user's own address and port) or to our service.
 */
export class Door {
  readonly #parts: Parts
  readonly #leg: ConnectLeg
  readonly #waiting = new Set<Waiting>()
  readonly #relayed = new Set<Socket>()
  readonly #verdicts = new Map<ServiceName, Verdict>()

  constructor(parts: Parts) {
    this.#parts = parts
    this.#leg = new ConnectLeg(parts.namespaces.cli)
  }

  /** How many users wait for a verdict. */
  get waiting(): number {
    return this.#waiting.size
  }

  /** Listens on every protected port until the signal aborts; then everybody is let go. @throws {SocketFailed} */
  async run(signal: AbortSignal): Promise<void> {
    const services = new Map(
      this.#parts.settings.production.services.map((service) => [service.port, service]),
    )
    const servers = await listenAllIn(
      this.#parts.namespaces.door,
      [...services.keys()].map((port) => ({ port })),
    )
    const open = [...services.values()].map((service, index) => [service, servers[index]] as const)
    for (const [service, server] of open)
      server?.on('connection', (socket: Socket) => this.#arrived(service, socket))
    this.#parts.log('info', 'door.opened', { ports: [...services.keys()] })
    if (!signal.aborted) await once(signal, 'abort')
    await this.#shut(servers)
  }

  /** The service is suspected: who arrives from here on waits. */
  suspect(service: ServiceName): void {
    this.#verdicts.delete(service)
    this.#leg.warm()
  }

  /** Sends on all who wait for this service, and those who arrive while the verdict is news. */
  verdict(service: ServiceName, who: Who): void {
    this.#verdicts.set(service, { who, atMs: performance.now() })
    const those = [...this.#waiting].filter((one) => serviceName(one.service) === service)
    if (those.length > 0)
      this.#parts.log('info', 'door.released', { service, to: who, waiting: those.length })
    for (const one of those) {
      this.#leave(one)
      this.#send(one.service, one.socket, who, false)
    }
  }

  #arrived(service: Service, socket: Socket): void {
    // `pipe` must be able to pass on that one side has finished while the other goes on.
    socket.allowHalfOpen = true
    socket.on('error', () => socket.destroy())
    const verdict = this.#standing(serviceName(service))
    if (verdict === undefined) this.#wait(service, socket)
    else this.#send(service, socket, verdict, true)
  }

  #standing(service: ServiceName): Who | undefined {
    const verdict = this.#verdicts.get(service)
    if (verdict?.who === 'production' && performance.now() - verdict.atMs > RELEASE_MS)
      return undefined
    return verdict?.who
  }

  #wait(service: Service, socket: Socket): void {
    if (this.#waiting.size >= WAITING_MAX) {
      this.#parts.log('warn', 'door.full', { service: serviceName(service) })
      socket.destroy()
      return
    }
    this.#leg.warm()
    const impatient = setTimeout(() => socket.destroy(), WAIT_MS)
    const one: Waiting = { service, socket, impatient }
    this.#waiting.add(one)
    socket.once('close', () => this.#leave(one))
    // In these protocols a client that finishes before it was greeted is going away.
    socket.once('end', () => {
      if (this.#waiting.has(one)) socket.destroy()
    })
  }

  #leave(one: Waiting): void {
    clearTimeout(one.impatient)
    this.#waiting.delete(one)
  }

  #send(service: Service, socket: Socket, who: Who, straggler: boolean): void {
    const sent =
      who === 'service'
        ? this.#parts.connectService(service, socket)
        : this.#relay(service, socket, straggler)
    sent.catch((error: unknown) => {
      this.#parts.log('warn', 'door.relay-failed', { service: serviceName(service), error })
      socket.destroy()
    })
  }

  async #relay(service: Service, client: Socket, straggler: boolean): Promise<void> {
    try {
      const production = await this.#connect(service, client)
      for (const one of [client, production]) {
        this.#relayed.add(one)
        one.once('close', () => this.#relayed.delete(one))
      }
      join(client, production)
    } catch (error: unknown) {
      if (!straggler || !(error instanceof SocketFailed)) throw error
      // The verdict is older than this trouble: it does not speak of it.
      if (!client.destroyed) this.#wait(service, client)
    }
  }

  /** From the user's own port if it is free, else from another one. */
  async #connect({ port }: Service, client: Socket): Promise<Socket> {
    const target = {
      host: plain(client.localAddress),
      port,
      localAddress: plain(client.remoteAddress),
      timeoutMs: CONNECT_TIMEOUT_MS,
    }
    try {
      return await this.#leg.connect({ ...target, localPort: client.remotePort ?? 0 })
    } catch (error: unknown) {
      if (!(error instanceof SocketFailed) || !/^EADDR/.test(error.code)) throw error
      return this.#leg.connect({ ...target, localPort: 0 })
    }
  }

  async #shut(servers: readonly Server[]): Promise<void> {
    const sockets = [...[...this.#waiting].map(({ socket }) => socket), ...this.#relayed]
    for (const socket of sockets) socket.destroy()
    // What was given to the service is the service's: a server is not waited for until its last connection ends.
    for (const server of servers) server.close()
    await this.#leg.close()
  }
}

/** IPv4 as the kernel shows it to a socket that hears both families: without its IPv6 dress (RFC 4291 §2.5.5.2). */
const plain = (address: string | undefined): string => (address ?? '').replace(/^::ffff:/, '')

/** Passes bytes both ways: an end as an end, a failure as a failure. */
function join(client: Socket, production: Socket): void {
  production.allowHalfOpen = true
  for (const [from, to] of [
    [client, production],
    [production, client],
  ] as const) {
    from.setNoDelay(true)
    from.setKeepAlive(true, KEEP_ALIVE_MS)
    from.on('error', () => to.destroy())
    from.once('close', () => {
      if (!from.readableEnded) to.destroy()
    })
    from.pipe(to)
  }
  if (client.destroyed) production.destroy()
}
