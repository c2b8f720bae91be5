import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { inNamespace } from '../../firmware/command.ts'
import type { Bed } from './bed/bed.ts'
import { PRODUCTION } from './bed/plan.ts'
import { inBed } from './bed/record.ts'
import { here } from './bed/tools.ts'

/** What the users' side of the wire shows: every frame that claims to come from production's addresses. */
export class Neighbourhood {
  readonly #bed: Bed
  readonly #file: string
  readonly #capture: ChildProcess

  private constructor(bed: Bed, file: string, capture: ChildProcess) {
    this.#bed = bed
    this.#file = file
    this.#capture = capture
  }

  /** Answers when tcpdump(8) listens. */
  static async watch(bed: Bed): Promise<Neighbourhood> {
    const file = inBed(bed.record, 'users.pcap')
    const args = ['-i', 'eth0', '-U', '-s', '128', '-Z', 'root', '-w', file, FROM_PRODUCTION]
    const entered = inNamespace(bed.namespace('users'), { program: 'tcpdump', args })
    const capture = spawn(entered.program, [...entered.args], {
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    if (capture.stderr !== null) await once(capture.stderr, 'data')
    capture.stderr?.resume()
    return new Neighbourhood(bed, file, capture)
  }

  /** The link-layer address that the users' machine has for production now, an address each. */
  async caches(): Promise<Readonly<Record<string, string>>> {
    const entries: unknown = JSON.parse(await this.#bed.inside('users', 'ip', ['-j', 'neigh']))
    if (!Array.isArray(entries)) return {}
    return Object.fromEntries(
      entries.flatMap((entry: { dst?: unknown; lladdr?: unknown; state?: unknown }) =>
        ADDRESSES.has(String(entry.dst)) ? [[entry.dst, entry.lladdr ?? entry.state]] : [],
      ),
    )
  }

  /** Ends the watch: the link-layer addresses that were seen as a sender's, or said to be production's. */
  async ended(): Promise<{ readonly frames: number; readonly addresses: readonly string[] }> {
    const gone = once(this.#capture, 'exit')
    this.#capture.kill('SIGTERM')
    await gone
    const text = await here('tcpdump', ['-r', this.#file, '-n', '-e', '-t', '-v'])
    const senders = [...text.matchAll(/^([0-9a-f:]{17}) > /gm)].map(([, mac = '']) => mac)
    const told = [...text.matchAll(/(?:is-at|destination link-address option.*:) ([0-9a-f:]{17})/g)]
    const addresses = new Set([...senders, ...told.map(([, mac = '']) => mac)])
    return { frames: senders.length, addresses: [...addresses] }
  }
}

const ADDRESSES: ReadonlySet<string> = new Set([PRODUCTION.ipv4, PRODUCTION.ipv6])
const FROM_PRODUCTION = `src host ${PRODUCTION.ipv4} or src host ${PRODUCTION.ipv6}`
