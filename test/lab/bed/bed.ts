import { mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { loadCorpus } from '../corpus.ts'
import { type Account, ADMIN, hashed, someAccounts } from './accounts.ts'
import {
  type AgentRecord,
  APPLIANCE_ID,
  askAppliance,
  launchAgent,
  startAppliance,
  stopAgent,
} from './appliance.ts'
import { startBroker } from './broker.ts'
import { makeMailCertificates, makeNocCertificates } from './certificates.ts'
import { startDaemon } from './daemon.ts'
import { type Fault, heal, inflict } from './faults.ts'
import { makeNetwork, makePlainBridge, namespacesWith, removeNetwork } from './network.ts'
import {
  BROKER,
  directoryOf,
  MANAGEMENT,
  type NamespaceRole,
  namespaceOf,
  newPrefix,
  PORTS,
  PRODUCTION,
} from './plan.ts'
import { isAlive, processesIn } from './processes.ts'
import { Production } from './production.ts'
import { type BedRecord, findRecord, inBed, removeFiles, writeRecord } from './record.ts'
import { inside, NODE, PROJECT } from './tools.ts'

export type BedOptions = {
  /** `us` and four characters and a dash; a fresh one when absent. */
  readonly prefix?: string
  readonly accounts?: readonly Account[]
  /** How many accounts to make where none are given. */
  readonly users?: number
  /** Messages an account. */
  readonly messages?: number
  readonly seed?: number
  readonly store?: 'mdbox' | 'maildir'
  readonly appliance?: 'agent' | 'plain-bridge'
  readonly policy?: 'aggressive' | 'default' | 'lax'
  readonly giveBack?: 'automatic' | 'by-order'
  readonly holdMs?: number
  /** How long live sessions may stay with the appliance after production has taken over again. */
  readonly lingerMs?: number
  readonly noc?: boolean
}

const USERS = 3
const MESSAGES = 20
const HOLD_MS = 5_000
const LINGER_MS = 8_000
const LINE_SERVER_MS = 10_000

/** Users ↔ appliance ↔ production in namespaces of one machine, with real servers. */
export class Bed {
  readonly record: BedRecord
  readonly #production: Production

  private constructor(record: BedRecord) {
    this.record = record
    this.#production = new Production(record.prefix, record.directory)
  }

  /**
   * Builds a bed and answers when production (and the appliance, where there is one) answers. Failing or interrupted
   * by `signal`, it leaves nothing. @throws {Error} when there is a bed of that prefix already
   */
  static async up(options: BedOptions = {}, signal?: AbortSignal): Promise<Bed> {
    const prefix = options.prefix ?? newPrefix()
    if ((await namespacesWith(prefix)).length > 0) throw new Error(`there is a bed ${prefix}`)
    try {
      return new Bed(await build(prefix, options, signal))
    } catch (error: unknown) {
      await sweep(prefix)
      throw error
    }
  }

  /** A bed that another process has built. @throws {NoSuchBed} */
  static async find(prefix?: string): Promise<Bed> {
    return new Bed(await findRecord(prefix))
  }

  get prefix(): string {
    return this.record.prefix
  }

  namespace(role: NamespaceRole | 'svc'): string {
    return namespaceOf(this.prefix, role)
  }

  /** Runs a program in one of the namespaces. @throws {CommandFailed} */
  inside(role: NamespaceRole | 'svc', program: string, args: readonly string[], input?: string) {
    return inside(this.namespace(role), program, args, input)
  }

  fault(fault: Fault): Promise<void> {
    return inflict(fault, this.prefix, this.#production)
  }

  heal(): Promise<void> {
    return heal(this.prefix, this.#production)
  }

  /** Whether production's Postfix has delivered all that it has accepted. */
  async queueIsEmpty(): Promise<boolean> {
    return (await this.#production.queued()) === 0
  }

  get agentIsAlive(): boolean {
    return isAlive(this.#agent().pid)
  }

  /** What the appliance answers to its own command line. @throws {CommandFailed} @throws {NoAppliance} */
  ask(...words: readonly string[]): Promise<string> {
    return askAppliance(this.#agent(), words)
  }

  /** Whoever orders a take-over in a lab means it, also while production answers. */
  order(order: 'take-over' | 'give-back'): Promise<string> {
    return order === 'take-over' ? this.ask(order, '--confirm') : this.ask(order)
  }

  /** Ends the agent by SIGTERM (or starts it again over the same state) as a restart of the appliance does. */
  async restartAgent(): Promise<void> {
    const agent = this.#agent()
    await stopAgent(agent)
    const log = inBed(this.record, 'appliance', 'agent.log')
    const appliance = await launchAgent(this.prefix, { ...agent, log })
    Object.assign(this.record, { appliance })
    await writeRecord(this.record)
  }

  /** Ends every process in the bed's namespaces, removes namespaces and files. */
  async down(): Promise<void> {
    const { appliance } = this.record
    const present = await processesIn(this.namespace('appliance'))
    if (appliance.kind === 'agent' && present.includes(appliance.pid)) await stopAgent(appliance)
    await sweep(this.prefix)
  }

  /** What `npm run lab -- up --json` prints; the names are stable. */
  async description(): Promise<object> {
    const { prefix, accounts, ca, appliance } = this.record
    return {
      prefix,
      namespaces: {
        users: this.namespace('users'),
        appliance: this.namespace('appliance'),
        production: this.namespace('production'),
      },
      production: { ...PRODUCTION, ports: PORTS },
      appliance: {
        mgmt: { ipv4: MANAGEMENT.ipv4, ipv6: MANAGEMENT.ipv6 },
        stateDir: appliance.kind === 'agent' ? appliance.state : null,
        pids: await processesIn(this.namespace('appliance')),
      },
      accounts,
      admin: ADMIN,
      ca,
      ...(this.record.noc === undefined ? {} : { noc: this.record.noc }),
    }
  }

  #agent(): AgentRecord {
    const { appliance } = this.record
    if (appliance.kind === 'agent') return appliance
    throw new NoAppliance('this bed has a plain bridge in the place of the appliance')
  }
}

/** The bed was built with `--no-appliance`. */
export class NoAppliance extends Error {
  override readonly name = 'NoAppliance'
}

async function build(
  prefix: string,
  options: BedOptions,
  signal?: AbortSignal,
): Promise<BedRecord> {
  const directory = directoryOf(prefix)
  await mkdir(directory, { recursive: true })
  const accounts = options.accounts ?? someAccounts(options.users ?? USERS)
  const mail = join(directory, 'certificates')
  const [certificates, withHashes] = await Promise.all([
    makeMailCertificates(mail),
    hashed(accounts),
    makeNetwork(prefix),
  ])
  const draft: BedRecord = {
    prefix,
    directory,
    accounts,
    ca: certificates.ca,
    appliance: { kind: 'plain-bridge' },
  }
  await writeRecord(draft)
  signal?.throwIfAborted()

  const production = new Production(prefix, directory)
  await production.prepare(withHashes, certificates.production, options.store ?? 'mdbox')
  await Promise.all([production.start(), startLineServer(prefix, directory)])
  const corpus = { accounts, messages: options.messages ?? MESSAGES, seed: options.seed ?? 1 }
  await loadCorpus(namespaceOf(prefix, 'production'), corpus)
  signal?.throwIfAborted()

  const noc = options.noc === true ? await startNoc(prefix, directory) : undefined
  const record: BedRecord = {
    ...draft,
    ...(noc === undefined ? {} : { noc: noc.record }),
  }
  if (options.appliance === 'plain-bridge') {
    await makePlainBridge(prefix)
    await writeRecord(record)
    return record
  }
  const appliance = await startAppliance({
    prefix,
    directory,
    accounts: withHashes,
    certificate: certificates.production,
    policy: options.policy ?? 'default',
    giveBack: options.giveBack ?? 'automatic',
    holdMs: options.holdMs ?? HOLD_MS,
    lingerMs: options.lingerMs ?? LINGER_MS,
    ...(noc === undefined ? {} : { noc: noc.certificates }),
  })
  await writeRecord({ ...record, appliance })
  signal?.throwIfAborted()
  return { ...record, appliance }
}

async function startLineServer(prefix: string, directory: string): Promise<void> {
  const log = join(directory, 'line-server.log')
  const program = join(PROJECT, 'test', 'lab', 'bed', 'line-server.ts')
  await startDaemon(namespaceOf(prefix, 'production'), NODE, [program], { log })
  const deadline = performance.now() + LINE_SERVER_MS
  while (!(await readFile(log, 'utf8')).includes('listening')) {
    if (performance.now() > deadline) throw new Error(`the line server does not start: ${log}`)
    await delay(50)
  }
}

async function startNoc(prefix: string, directory: string) {
  const own = join(directory, 'noc')
  const certificates = await makeNocCertificates(own, APPLIANCE_ID)
  await startBroker(prefix, own, certificates)
  const { ca, appliance } = certificates
  const url = `mqtts://${BROKER.ipv4}:${BROKER.port}`
  return {
    certificates,
    record: { url, ca, certificate: appliance.certificate, key: appliance.key },
  }
}

async function sweep(prefix: string): Promise<void> {
  await removeNetwork(prefix)
  await removeFiles(prefix)
}
