import { chmod, mkdtemp, rename, rm } from 'node:fs/promises'
import net from 'node:net'
import { dirname, join } from 'node:path'
import type { Log } from '../../firmware/log.ts'
import type { Paths } from '../paths.ts'
import { type Answer, PROTOCOL_VERSION, requestIn } from './protocol.ts'
import { type Orders, verbNamed, verbs } from './verbs.ts'

const REQUEST_CHARACTERS_MAX = 16 * 1024
const CONNECTIONS_MAX = 16
/** How long an order may take to be accepted or refused. */
const ORDER_MS = 30_000
/** How long a connection may be without a word in either direction. */
const IDLE_MS = ORDER_MS + 5_000
/** How long the end waits for answers that are on their way. */
const LAST_ANSWER_MS = 1_000

/** The socket that the agent with these paths listens on. */
export const controlPath = ({ run }: Pick<Paths, 'run'>): string => join(run, 'control')

/**
 * The door for orders from this machine: a unix socket that only its owner may open. A caller sends one JSON object
 * a line, `{version, verb, arguments}`, and gets one a line, `{version, accepted, because?, status?}`.
 */
export class Control {
  readonly #path: string
  readonly #orders: Orders
  readonly #log: Log

  constructor({
    path,
    orders,
    log,
  }: {
    readonly path: string
    readonly orders: Orders
    readonly log: Log
  }) {
    this.#path = path
    this.#orders = orders
    this.#log = log
  }

  /** Answers orders until the signal; the socket is gone afterwards. @throws NodeJS.ErrnoException when it cannot listen. */
  async run(signal: AbortSignal): Promise<void> {
    const callers = new Set<net.Socket>()
    const busy = new Set<net.Socket>()
    const server = net.createServer((caller) => {
      callers.add(caller)
      caller.once('close', () => callers.delete(caller))
      // A caller that goes away without waiting for its answer is no error of ours.
      caller.on('error', () => {})
      caller.setTimeout(IDLE_MS, () => caller.destroy())
      void this.#attend(caller, busy, signal)
    })
    server.maxConnections = CONNECTIONS_MAX
    server.on('drop', () =>
      this.#log('warn', 'caller.refused', { connectionsMax: CONNECTIONS_MAX }),
    )
    await listenPrivately(server, this.#path)
    const closed = new Promise<void>((resolve) => server.once('close', resolve))
    let impatient: NodeJS.Timeout | undefined
    const close = () => {
      server.close()
      // An order may be what ends the agent, or its settings: whoever gave it still gets the answer.
      for (const caller of callers) if (!busy.has(caller)) caller.destroy()
      impatient = setTimeout(() => {
        for (const caller of callers) caller.destroy()
      }, LAST_ANSWER_MS)
    }
    signal.addEventListener('abort', close, { once: true })
    if (signal.aborted) close()
    await closed
    clearTimeout(impatient)
    await rm(this.#path, { force: true })
  }

  async #attend(caller: net.Socket, busy: Set<net.Socket>, signal: AbortSignal): Promise<void> {
    for await (const line of linesFrom(caller)) {
      busy.add(caller)
      const answer =
        line.length > REQUEST_CHARACTERS_MAX
          ? refused(`a request of over ${REQUEST_CHARACTERS_MAX} characters`)
          : await this.#answer(line)
      if (caller.writable)
        caller.write(`${JSON.stringify({ version: PROTOCOL_VERSION, ...answer })}\n`)
      busy.delete(caller)
      if (signal.aborted) break
    }
    caller.end()
  }

  async #answer(line: string): Promise<Answer> {
    const request = requestIn(line)
    if ('because' in request) return refused(request.because)
    const verb = verbNamed(request.verb)
    if (verb === undefined) {
      const known = verbs.map(({ name }) => name).join(', ')
      return refused(`no such verb: ${request.verb}; there are ${known}`)
    }
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<Answer>((resolve) => {
      const because = `the agent was busy for ${ORDER_MS / 1_000} s; the order may yet be carried out`
      timer = setTimeout(() => resolve(refused(because)), ORDER_MS).unref()
    })
    try {
      return await Promise.race([verb.perform(this.#orders, request.arguments), late])
    } catch (error: unknown) {
      this.#log('error', 'order.failed', { verb: verb.name, error })
      return refused(`${verb.name} failed: ${String(error)}`)
    } finally {
      clearTimeout(timer)
    }
  }
}

const refused = (because: string): Answer => ({ accepted: false, because })

/** Whole lines as they come, until the caller ends; one that is too long is the last. */
async function* linesFrom(caller: net.Socket): AsyncGenerator<string> {
  caller.setEncoding('utf8')
  let received = ''
  try {
    for await (const text of caller.iterator({ destroyOnReturn: false })) {
      received += String(text)
      const lines = received.split('\n')
      received = lines.pop() ?? ''
      yield* lines
      if (received.length > REQUEST_CHARACTERS_MAX) return yield received
    }
  } catch (error: unknown) {
    if (!caller.destroyed) throw error
  }
}

/** Listens on a socket that was never open to anybody else, in place of one that a dead agent left. */
async function listenPrivately(server: net.Server, path: string): Promise<void> {
  const nursery = await mkdtemp(join(dirname(path), '.c-'))
  try {
    const born = join(nursery, 's')
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(born, () => {
        server.off('error', reject)
        resolve()
      })
    })
    await chmod(born, 0o600)
    await rename(born, path)
  } catch (error: unknown) {
    server.close()
    throw error
  } finally {
    await rm(nursery, { recursive: true, force: true })
  }
}
