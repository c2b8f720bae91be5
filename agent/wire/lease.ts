import type { ChildProcess } from 'node:child_process'
import { endChild, startChild } from '../../firmware/child.ts'
import { type Command, CommandFailed, type Run } from '../../firmware/command.ts'
import type { Log } from '../../firmware/log.ts'

const RETRY_MS = 10_000
const TIMEOUT_MS = 5_000

/** Clients that stay in the foreground, in the order of preference. */
const clientsFor = (device: string): readonly Command[] => [
  { program: 'udhcpc', args: ['-f', '-i', device] },
  { program: 'dhclient', args: ['-d', '-4', device] },
]

/** The appliance's own address, when the network gives it (DHCP): keeps a client running on the management interface. */
export class Lease {
  readonly #device: string
  readonly #run: Run
  readonly #log: Log
  #child: ChildProcess | undefined
  #retry: NodeJS.Timeout | undefined
  #closed = false

  constructor({ device, run, log }: { device: string; run: Run; log: Log }) {
    this.#device = device
    this.#run = run
    this.#log = log
  }

  /** Starts a client, unless one is running. Without one the appliance has no address of its own, and says so. */
  async start(): Promise<void> {
    if (this.#child !== undefined || this.#closed) return
    const client = await this.#installed()
    if (client === undefined) {
      this.#log('error', 'management.dhcp-missing', {
        device: this.#device,
        remedy: 'install udhcpc or dhclient, or give wire.management.ipv4 an address',
      })
      return
    }
    const child = startChild(client, { stdio: 'ignore' })
    this.#child = child
    child.once('exit', (exitCode) => {
      this.#child = undefined
      if (this.#closed) return
      this.#log('warn', 'management.dhcp-ended', { device: this.#device, exitCode })
      this.#retry = setTimeout(() => this.#again(), RETRY_MS)
    })
  }

  #again(): void {
    this.start().catch((error: unknown) => {
      this.#log('error', 'management.dhcp-failed', { device: this.#device, error })
    })
  }

  async close(): Promise<void> {
    this.#closed = true
    clearTimeout(this.#retry)
    if (this.#child !== undefined) await endChild(this.#child)
  }

  async #installed(): Promise<Command | undefined> {
    for (const client of clientsFor(this.#device))
      try {
        await this.#run({ program: client.program, args: ['--help'] }, { timeoutMs: TIMEOUT_MS })
        return client
      } catch (error: unknown) {
        if (!(error instanceof CommandFailed)) throw error
        // A client that dislikes `--help` is there all the same.
        if (error.exitCode !== undefined) return client
      }
    return undefined
  }
}
