import type { ChildProcess } from 'node:child_process'
import type { Server, Socket } from 'node:net'
import { endChild, startChild } from '../../firmware/child.ts'
import { inNamespace } from '../../firmware/command.ts'
import { LEG, LISTENER } from './socket-children.ts'

const START_TIMEOUT_MS = 15_000
const BACKLOG = 511

/** A socket that could not be had in another namespace; `code` is the system's (`EADDRINUSE`, `ECONNREFUSED` …). */
export class SocketFailed extends Error {
  override readonly name = 'SocketFailed'
  readonly code: string

  constructor(what: string, code: string) {
    super(`${what}: ${code}`)
    this.code = code
  }
}

/** Where to listen; every address of the namespace when `host` is absent. */
export type Listening = { readonly port: number; readonly host?: string }

/** What a child says with a handle, or instead of one. */
type Told = { readonly id: number; readonly error?: string }

/** A Node process inside a namespace, with a channel over which sockets can be handed. */
const startInside = (namespace: string, code: string): ChildProcess =>
  startChild(inNamespace(namespace, { program: process.execPath, args: ['--eval', code] }), {
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    // What this process was started with (a loader, an inspector) is not meant for it.
    env: { NODE_OPTIONS: '' },
  })

/** A listening socket of another namespace, which belongs to this process. @throws {SocketFailed} */
export async function listenIn(namespace: string, listening: Listening): Promise<Server> {
  const [server] = await listenAllIn(namespace, [listening])
  if (server === undefined) throw new SocketFailed(`${namespace} port ${listening.port}`, 'EIO')
  return server
}

/** Several at the cost of one, in the order asked for: all of them or none. @throws {SocketFailed} */
export async function listenAllIn(
  namespace: string,
  all: readonly Listening[],
): Promise<readonly Server[]> {
  const child = startInside(namespace, LISTENER)
  const servers = new Map<number, Server>()
  try {
    await new Promise<void>((resolve, reject) => {
      const fail = (index: number, code: string) =>
        reject(new SocketFailed(`${namespace} port ${all[index]?.port ?? ''}`, code))
      const impatient = setTimeout(() => fail(0, 'ETIMEDOUT'), START_TIMEOUT_MS)
      child.once('close', () => {
        clearTimeout(impatient)
        fail(0, 'EPIPE')
      })
      child.once('error', reject)
      child.on('message', ({ id, error }: Told, server: Server | undefined) => {
        if (error !== undefined || server === undefined) return fail(id, error ?? 'EIO')
        servers.set(id, server)
        if (servers.size === all.length) resolve()
      })
      child.send(all.map(({ port, host }) => ({ port, host: host ?? '::', backlog: BACKLOG })))
    })
  } catch (error: unknown) {
    for (const server of servers.values()) server.close()
    throw error
  } finally {
    await endChild(child)
  }
  return all.flatMap((_, id) => servers.get(id) ?? [])
}

/** A connection to make: to production, from an address that need not be ours. Port 0: any. */
export type LegTarget = {
  readonly host: string
  readonly port: number
  readonly localAddress: string
  readonly localPort: number
  readonly timeoutMs: number
}

type Asked = {
  readonly child: ChildProcess
  readonly resolve: (socket: Socket) => void
  readonly reject: (error: SocketFailed) => void
}

const IDLE_MS = 60_000
const ASKED_MAX = 8_192

/**
 * Makes connections inside the namespace where every user's address is ours, and hands them over. The process that
 * does it is started when it is needed and ends after a minute without work.
 */
export class ConnectLeg {
  readonly #namespace: string
  #child: ChildProcess | undefined
  #idle: NodeJS.Timeout | undefined
  #last = 0
  readonly #asked = new Map<number, Asked>()

  constructor(namespace: string) {
    this.#namespace = namespace
  }

  /** Starts the process ahead of the first connection. */
  warm(): void {
    this.#ready()
    this.#restLater()
  }

  /** A connected socket, from which nothing has been read. @throws {SocketFailed} */
  connect(target: LegTarget): Promise<Socket> {
    const what = `${target.host} port ${target.port}`
    if (this.#asked.size >= ASKED_MAX) return Promise.reject(new SocketFailed(what, 'EAGAIN'))
    const child = this.#ready()
    this.#last += 1
    const id = this.#last
    return new Promise((resolve, reject) => {
      this.#asked.set(id, { child, resolve, reject })
      child.send({ id, ...target }, (error) => {
        if (error !== null) this.#answered(id)?.reject(new SocketFailed(what, 'EPIPE'))
      })
    })
  }

  /** Ends the process; connections that were handed over stay. */
  async close(): Promise<void> {
    clearTimeout(this.#idle)
    if (this.#child !== undefined) await endChild(this.#child)
  }

  #ready(): ChildProcess {
    this.#child ??= this.#start()
    return this.#child
  }

  #start(): ChildProcess {
    const child = startInside(this.#namespace, LEG)
    child.on('message', ({ id, error }: Told, socket: Socket | undefined) => {
      const asked = this.#answered(id)
      if (asked === undefined) socket?.destroy()
      else if (socket === undefined) asked.reject(new SocketFailed('leg', error ?? 'ECONNRESET'))
      else asked.resolve(socket)
    })
    const gone = () => {
      if (this.#child === child) this.#child = undefined
      for (const [id, asked] of [...this.#asked])
        if (asked.child === child) this.#answered(id)?.reject(new SocketFailed('leg', 'EPIPE'))
    }
    child.once('exit', gone)
    child.once('error', gone)
    return child
  }

  #answered(id: number): Asked | undefined {
    const asked = this.#asked.get(id)
    this.#asked.delete(id)
    this.#restLater()
    return asked
  }

  #restLater(): void {
    clearTimeout(this.#idle)
    this.#idle = setTimeout(() => {
      if (this.#asked.size > 0) return this.#restLater()
      const child = this.#child
      this.#child = undefined
      if (child?.connected) child.disconnect()
    }, IDLE_MS)
    this.#idle.unref()
  }
}
