import assert from 'node:assert/strict'
import { setTimeout as delay } from 'node:timers/promises'
import * as v from 'valibot'
import { type MacAddress, macAddress } from '../../firmware/addresses.ts'
import { type Command, CommandFailed, inNamespace, type Run } from '../../firmware/command.ts'
import type { Log } from '../../firmware/log.ts'
import type { Settings } from '../config.ts'
import type { Posture } from '../continuity/posture.ts'
import { Lease } from './lease.ts'
import {
  bridgeSteps,
  commandFor,
  followSteps,
  type Links,
  type Present,
  roomSteps,
} from './links.ts'
import { Nft } from './nft.ts'
import { elementsFor, macElement, ownershipOf, refreshFor } from './ownership.ts'
import { type Namespaces, planFor, type WirePlan } from './plan.ts'
import { differences, type TableFacts } from './readback.ts'
import {
  FLOW_SETS,
  fingerprintChain,
  fixedElements,
  rulesetFor,
  rulesOf,
  TABLE,
} from './ruleset.ts'

const TIMEOUT_MS = 5_000
/** How long production may take to say where it is. */
const NEIGHBOUR_WAIT_MS = 1_000
const NEIGHBOUR_POLL_MS = 50

/** Nothing can be taken over before production's MAC address is known. */
export class MacUnknown extends Error {
  override readonly name = 'MacUnknown'
}

const linkList = v.pipe(
  v.string(),
  v.transform((text) => text.trim() || '[]'),
  v.parseJson(),
  v.array(
    v.object({
      ifname: v.string(),
      address: v.optional(v.string(), ''),
      master: v.optional(v.string()),
    }),
  ),
)
const nameList = v.pipe(
  v.string(),
  v.transform((text) => text.trim() || '[]'),
  v.parseJson(),
  v.array(v.object({ name: v.string() })),
)
const neighbourList = v.pipe(
  v.string(),
  v.transform((text) => text.trim() || '[]'),
  v.parseJson(),
  v.array(v.object({ lladdr: v.optional(v.string()) })),
)

/**
 * The two networks: makes the kernel's links and rules agree with a posture, and says when they do not.
 * The kernel goes on by itself for three seconds (`rearm` prolongs that), whatever becomes of this process.
 */
export class Wire {
  readonly namespaces: Namespaces
  readonly #plan: WirePlan
  readonly #settings: Settings
  readonly #run: Run
  readonly #log: Log
  readonly #nft: Nft
  readonly #lease: Lease
  #mac: MacAddress | undefined
  #posture: Posture = { name: 'bare' }
  /** Transactions go one after the other: an old refresh must never land after a new posture. */
  #turn: Promise<unknown> = Promise.resolve()

  constructor({ settings, run, log }: { settings: Settings; run: Run; log: Log }) {
    this.#settings = settings
    this.#run = run
    this.#log = log
    this.#plan = planFor(settings)
    this.namespaces = this.#plan.namespaces
    this.#nft = new Nft(run)
    this.#lease = new Lease({ device: this.#plan.devices.management, run, log })
  }

  /** Production's MAC address, as the rules know it. */
  get mac(): MacAddress | undefined {
    return this.#mac
  }

  /**
   * Makes namespaces, links, rules and the bridge, or adopts what is there: live flows are not disturbed. With a
   * posture, its elements are armed before production's network joins the bridge. @throws {CommandFailed}
   */
  prepare(mac?: MacAddress, first?: Posture): Promise<void> {
    return this.#inTurn(async () => {
      const loaded = await this.#nft.list()
      const [known] = loaded?.elements.get('mac') ?? []
      const learned = known === undefined ? undefined : macAddress(known)
      this.#mac = mac ?? this.#settings.production.mac ?? learned
      const present = await this.#present()
      for (const step of roomSteps(this.#plan, present, this.#mac)) await this.#carryOut(step)
      await this.#nft.apply(this.#tableText(loaded))
      if (first !== undefined) await this.#arm(first)
      for (const step of bridgeSteps(this.#plan, present)) await this.#carryOut(step)
      if (this.#settings.wire.management.ipv4 === 'dhcp') await this.#lease.start()
    })
  }

  /** Makes the kernel agree with a posture, in one transaction. @throws {MacUnknown} @throws {CommandFailed} */
  apply(posture: Posture): Promise<void> {
    return this.#inTurn(() => this.#arm(posture))
  }

  /** Gives what is armed its full three seconds again; to be called every second. A lost table is loaded anew. */
  rearm(): Promise<void> {
    return this.#inTurn(async () => {
      if (this.#mac === undefined) return
      try {
        await this.#nft.apply(refreshFor(this.#posture, this.#plan))
      } catch (error: unknown) {
        if (!(error instanceof CommandFailed)) throw error
        this.#log('error', 'wire.table-lost', { because: error.stderr })
        await this.#nft.apply(this.#tableText(await this.#nft.list()))
        await this.#arm(this.#posture)
      }
    })
  }

  /** Reads the kernel back: each difference from what it should do in one line. @throws {CommandFailed} */
  verify(): Promise<readonly string[]> {
    return this.#inTurn(async () => {
      const { devices } = this.#plan
      const [table, links] = [await this.#nft.list(), await this.#links()]
      const ports = [devices.users, devices.production, devices.managementPort]
      const apart = ports
        .filter((port) => links.get(port)?.master !== devices.bridge)
        .map((port) => `${port} is not a port of ${devices.bridge}`)
      return [...apart, ...differences(this.#expected(), table)]
    })
  }

  /**
   * Asks the network where production is, from the appliance's own address; `undefined` when it does not say.
   * Answers within a second. @throws {CommandFailed}
   */
  async productionMac(): Promise<MacAddress | undefined> {
    const [first] = this.#plan.addresses
    assert(first !== undefined, 'settings name at least one address')
    const at = [first.ipv4, 'dev', this.#plan.devices.management]
    // `use` makes the kernel resolve the address without a packet of anybody's (ip-neighbour(8)).
    await this.#ip(['neigh', 'replace', ...at, 'use'])
    for (let waitedMs = 0; waitedMs < NEIGHBOUR_WAIT_MS; waitedMs += NEIGHBOUR_POLL_MS) {
      const [entry] = v.parse(neighbourList, await this.#ip(['-j', 'neigh', 'show', ...at]))
      if (entry?.lladdr !== undefined) return macAddress(entry.lladdr)
      await delay(NEIGHBOUR_POLL_MS)
    }
    return undefined
  }

  /** Production has this MAC address: so have we, and what we claim is announced anew. @throws {CommandFailed} */
  followMac(mac: MacAddress): Promise<void> {
    return this.#inTurn(async () => {
      if (mac === this.#mac) return
      await this.#nft.apply(macElement(mac))
      const present = await this.#present()
      for (const step of followSteps(this.#plan, present, mac)) await this.#carryOut(step)
      const first = this.#mac === undefined
      this.#mac = mac
      if (first) await this.#arm(this.#posture)
    })
  }

  /** Users' connections that are ours: at the service, or at the door and not relayed to production. */
  async liveFlows(): Promise<number> {
    const [service, door, legs] = await Promise.all([
      this.#connections(this.namespaces.svc, 'sport'),
      this.#connections(this.namespaces.door, 'sport'),
      this.#connections(this.namespaces.cli, 'dport'),
    ])
    return service + Math.max(0, door - legs)
  }

  /** Takes the table away: nothing remains but a bridge. */
  withdraw(): Promise<void> {
    return this.#inTurn(() => this.#nft.apply(`table ${TABLE} { }\ndelete table ${TABLE}\n`))
  }

  /** Ends the programs that this object keeps ready; what the kernel does stays as it is. */
  async close(): Promise<void> {
    await this.#turn
    await Promise.all([this.#nft.close(), this.#lease.close()])
  }

  async #arm(posture: Posture): Promise<void> {
    const promising =
      posture.name !== 'bare' && !(posture.name === 'wire' && posture.held.length === 0)
    if (this.#mac === undefined && promising)
      throw new MacUnknown('production has not been heard: set production.mac in the settings')
    this.#posture = posture
    // Without its MAC address nothing may be promised in production's name, not even a wait at the door.
    const plan = this.#mac === undefined ? { ...this.#plan, addresses: [] } : this.#plan
    await this.#nft.apply(elementsFor(posture, plan))
  }

  /** Replaces a table that is not what it should be; an intact one stays, and with it the flows it knows. */
  #tableText(loaded: TableFacts | undefined): string {
    const mac = this.#mac === undefined ? '' : macElement(this.#mac)
    const expected = { ...this.#expected(), elements: fixedElements(this.#plan) }
    const problems = differences(expected, loaded)
    if (problems.length === 0) return mac
    this.#log('info', 'wire.table-loaded', { because: problems })
    const live = FLOW_SETS.flatMap((set) => {
      const flows = loaded?.elements.get(set) ?? []
      return flows.length === 0 ? [] : [`add element ${TABLE} ${set} { ${flows.join(', ')} }`]
    })
    return [rulesetFor(this.#plan), mac, ...live, ''].join('\n')
  }

  #expected() {
    const mac = this.#mac
    const elements = new Map([
      ...fixedElements(this.#plan),
      ['mac', mac === undefined ? [] : [mac]],
    ])
    const owned = mac === undefined ? [] : ownershipOf(this.#posture, this.#plan)
    // A write barrier ends by itself, at its own time.
    for (const [set, wanted] of owned)
      if (!set.startsWith('freeze') || wanted.length === 0) elements.set(set, wanted)
    return {
      rules: rulesOf(this.#plan),
      fingerprint: fingerprintChain(this.#plan),
      elements,
      open: (set: string) => set.startsWith('hold'),
    }
  }

  async #present(): Promise<Present> {
    const names = v.parse(nameList, await this.#ip(['-j', 'netns', 'list']))
    const namespaces = names.map(({ name }) => name)
    const { svc, door, cli } = this.namespaces
    const linksIn = (namespace: string): Promise<Links> =>
      namespaces.includes(namespace) ? this.#links(namespace) : Promise.resolve(new Map())
    return {
      namespaces,
      root: await this.#links(),
      svc: await linksIn(svc),
      door: await linksIn(door),
      cli: await linksIn(cli),
    }
  }

  async #links(namespace?: string): Promise<Links> {
    const list = v.parse(linkList, await this.#ip(['-j', 'link', 'show'], namespace))
    return new Map(
      list.map(({ ifname, address, master }) => [
        ifname,
        { mac: address, ...(master === undefined ? {} : { master }) },
      ]),
    )
  }

  async #connections(namespace: string, side: 'sport' | 'dport'): Promise<number> {
    const ports = new Set(this.#settings.production.services.map(({ port }) => port))
    const filter = [...ports].map((port) => `${side} = :${port}`).join(' or ')
    const ss: Command = { program: 'ss', args: ['-Htn', 'state', 'established', `( ${filter} )`] }
    const text = await this.#run(inNamespace(namespace, ss), { timeoutMs: TIMEOUT_MS })
    return text.split('\n').filter((line) => line.trim() !== '').length
  }

  #ip(args: readonly string[], namespace?: string): Promise<string> {
    const ip: Command = { program: 'ip', args }
    const command = namespace === undefined ? ip : inNamespace(namespace, ip)
    return this.#run(command, { timeoutMs: TIMEOUT_MS })
  }

  async #carryOut(step: ReturnType<typeof roomSteps>[number]): Promise<void> {
    const command = commandFor(step, this.#plan)
    if (command !== undefined) await this.#run(command, { timeoutMs: TIMEOUT_MS })
  }

  #inTurn<T>(task: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(task)
    this.#turn = result.catch(() => {})
    return result
  }
}
