import { statfs } from 'node:fs/promises'
import { createConnection, type Socket } from 'node:net'
import { join } from 'node:path'
import { pipeline } from 'node:stream'
import type { Clock } from '../firmware/clock.ts'
import type { Run } from '../firmware/command.ts'
import type { Log } from '../firmware/log.ts'
import { turnstile } from '../firmware/turnstile.ts'
import { type Activity, Agent } from './agent.ts'
import { type Service, type ServiceName, type Settings, serviceName } from './config.ts'
import type { Problem, Status } from './console/status.ts'
import type { Orders } from './console/verbs.ts'
import { type State, standsIn } from './continuity/machine.ts'
import { drain, prepareToFailBack, type WayBack } from './give-back.ts'
import { Health, type ServiceVerdict } from './health/health.ts'
import { Uplink } from './noc/uplink.ts'
import type { Paths } from './paths.ts'
import { type Made, prepared } from './prepared.ts'
import { BackSync, NotGivenBack } from './replica/mail/backsync.ts'
import { FolderUnsettled } from './replica/mail/backsync-folder.ts'
import { discoverNaming } from './replica/mail/discover.ts'
import { Doveadm } from './replica/mail/doveadm.ts'
import {
  CertificateUnexpected,
  CredentialRefused,
  openProduction,
  openReplica,
  PeerUnreachable,
} from './replica/mail/imap.ts'
import type { Ledger } from './replica/mail/ledger.ts'
import { Replicator } from './replica/mail/replicator.ts'
import { Triggers } from './replica/mail/triggers.ts'
import { essentialOf, type Gathered, nothingGathered, statusOf } from './report.ts'
import { accountOf } from './serving/accounts.ts'
import { type Admission, PasswordOracle } from './serving/auth.ts'
import { deliveredQuery } from './serving/delivery.ts'
import { resolve } from './serving/directory.ts'
import { DOVEADM_PORT, Dovecot, replicatorConf, serviceConf } from './serving/dovecot.ts'
import { DOOR_PORT_OFFSET, type DovecotConf } from './serving/dovecot-conf.ts'
import { MailFront } from './serving/smtp.ts'
import type { SettingsInForce } from './settings-store.ts'
import { capture } from './wire/capture.ts'
import { watchCarrier } from './wire/carrier.ts'
import { Door } from './wire/door.ts'
import { BACKSTAGE } from './wire/links.ts'
import { Replay } from './wire/replay.ts'
import { listenIn } from './wire/sockets.ts'
import { Wire } from './wire/wire.ts'

/** What comes from outside the appliance's own rooms. */
export type Surroundings = {
  readonly settings: Settings
  readonly settingsFile: string
  /** What the newest look at the settings file came to. */
  readonly checked: () => Pick<SettingsInForce, 'accepted' | 'problems'>
  readonly paths: Paths
  readonly version: string
  readonly clock: Clock
  readonly run: Run
  readonly log: Log
}

const POLL_MS = 200
const FOLLOW_MS = 10_000
/** Reading the kernel back starts programs: seldom when nothing is ours, often when it is. */
const GATHER_MS = { watching: 15_000, standingIn: 2_000 } as const
const FLUSH_MS = 60_000
/** Mail that production does not take at once must not hold up the failback: it stays queued and is offered again. */
const FLUSHES_MAX = 5

/** One life with one set of settings: every room, joined. */
export class Appliance {
  readonly #around: Surroundings
  readonly #users: ReadonlyMap<string, { readonly hash: string }>
  readonly #wire: Wire
  readonly #door: Door
  readonly #made: Made
  #dovecots: Dovecots | undefined
  readonly #oracle: PasswordOracle
  readonly #mail: MailFront
  readonly #ledger: Ledger
  readonly #replicator: Replicator
  readonly #backSync: BackSync
  readonly #health: Health
  readonly #uplink: Uplink | undefined
  readonly #agent: Agent
  readonly #log: Log
  #gathered: Gathered = nothingGathered
  /** Why production could not be asked how it names its folders. */
  #asking: Problem | undefined
  /** Resolves when the replica is ours to write to: no pull is running any more. */
  #standing = turnstile()
  #frozen = turnstile()

  private constructor(around: Surroundings, made: Made) {
    const { settings, paths, clock, run } = around
    this.#around = around
    this.#made = made
    this.#users = made.users
    this.#ledger = made.ledger
    this.#uplink = settings.noc && new Uplink({ noc: settings.noc, log: around.log })
    this.#log = (level, event, fields) => {
      around.log(level, event, fields)
      if (level !== 'debug') this.#uplink?.event(level, event, fields)
    }
    const log = this.#log
    this.#wire = new Wire({ settings, run, log })
    const { namespaces } = this.#wire
    this.#door = new Door({
      settings,
      namespaces,
      log,
      connectService: (service, client) => this.#connectService(service, client),
    })
    const admit = (user: string) => this.#admit(user)
    this.#oracle = new PasswordOracle({
      entries: made.users,
      domains: settings.production.domains,
      admit,
      socket: oracleSocket(paths),
      log,
    })
    const doveadm = new Doveadm({ port: DOVEADM_PORT, key: made.key })
    this.#mail = new MailFront({
      settings,
      paths,
      users: made.users,
      admit,
      tls: made.tls,
      log,
      secrets: {
        adminPassword: made.adminPassword,
        ...(made.relayPassword !== undefined && { smarthostPassword: made.relayPassword }),
      },
      listen: ({ port }) => listenIn(namespaces.svc, { port }),
      delivered: async (user, queueId) => {
        const found = await doveadm.call('search', { user, query: deliveredQuery(queueId) })
        return Array.isArray(found) && found.length > 0
      },
    })
    const users = [...made.users.keys()]
    const { ledger } = made
    this.#replicator = new Replicator({ settings, users, ledger, doveadm, log, clock })
    this.#backSync = new BackSync({
      settings,
      ledger,
      doveadm,
      log,
      openProduction: (user, options) => openProduction(settings, user, options),
      openReplica: (user, options) => openReplica({ key: made.key }, user, options),
    })
    this.#health = new Health({
      settings,
      log,
      clock,
      on: (verdict) => this.#judged(verdict),
      returned: (because) => this.#agent.observe({ name: 'production-returned' }, because),
      known: made.facts.learned.answered ?? [],
      ...(users[0] === undefined ? {} : { account: users[0] }),
    })
    this.#agent = new Agent({
      clock,
      log,
      policy: settings.judgement,
      services: settings.production.services.map(serviceName),
      journal: made.journal,
      wire: this.#wire,
      door: this.#door,
      activities: this.#activities(),
      report: (state) => this.#reported(state),
    })
  }

  /** Reads what the settings name and opens what is on the medium. @throws NodeJS.ErrnoException */
  static async make(around: Surroundings): Promise<Appliance> {
    return new Appliance(around, await prepared(around))
  }

  /** Runs until the signal aborts or a part fails for good. What the kernel does stays as it is. */
  async run(signal: AbortSignal): Promise<void> {
    const stop = new AbortController()
    const any = AbortSignal.any([signal, stop.signal])
    try {
      // Fencing: what the journal says is armed before production's network joins the bridge.
      await this.#wire.prepare(this.#made.facts.learned.mac, this.#agent.posture)
      const parts = [
        this.#agent.run(any),
        this.#serve(any),
        this.#health.run(any),
        this.#door.run(any),
        this.#watchWire(any),
        this.#follow(any),
        this.#gather(any),
        this.#uplink?.run(any),
      ].filter((part) => part !== undefined)
      await ended(parts, stop)
    } finally {
      stop.abort()
      await Promise.all([this.#mail.close(), this.#oracle.close(), this.#wire.close()])
      await this.#backSync.close()
      this.#ledger.close()
    }
  }

  /** Everything that answers users and copies mail: as soon as it is known how production names its folders. */
  async #serve(signal: AbortSignal): Promise<void> {
    const { settings, paths, clock } = this.#around
    const { facts, key, adminPassword } = this.#made
    while (facts.learned.naming === undefined) {
      if (signal.aborted) return
      if (!(await this.#learnNaming())) await clock.sleep(POLL_MS, signal).catch(() => undefined)
    }
    const { naming } = facts.learned
    const made = (name: 'replicator' | 'service', conf: DovecotConf, namespace?: string) =>
      new Dovecot({ name, conf, paths, log: this.#log, ...(namespace && { namespace }) })
    const dovecots = {
      replicator: made(
        'replicator',
        replicatorConf({ settings, paths, key, adminPassword, names: naming }),
      ),
      service: made(
        'service',
        serviceConf({ settings, paths, oracle: oracleSocket(paths), names: naming }),
        this.#wire.namespaces.svc,
      ),
    }
    await this.#oracle.listen()
    await Promise.all([dovecots.replicator.start(), dovecots.service.start()])
    await this.#mail.listen()
    this.#dovecots = dovecots
    await Promise.all([
      dovecots.replicator.run(signal),
      dovecots.service.run(signal),
      this.#replicator.run(signal),
    ])
  }

  /** Asks production; a peer that cannot be asked is asked again, and the status says why. */
  async #learnNaming(): Promise<boolean> {
    const { settings } = this.#around
    for (const user of this.#users.keys())
      try {
        const client = await openProduction(settings, user)
        const naming = await discoverNaming(client).finally(() => client.close())
        this.#asking = undefined
        this.#log('info', 'production.named-folders', naming)
        await this.#made.facts.learn({ naming })
        return true
      } catch (error: unknown) {
        if (!isRefusal(error)) throw error
        const what = error.message
        if (what !== this.#asking?.what) this.#log('warn', 'production.not-asked', { what })
        this.#asking = { what, where: 'production.admin', todo: 'It is tried again by itself' }
        if (error instanceof PeerUnreachable) return false
      }
    return false
  }

  /** What people may ask for, whatever the face. `reload` belongs to whoever made this appliance. */
  orders(reload: Orders['reload']): Orders {
    return {
      status: () => this.status(),
      takeOver: (reason) => this.#agent.order({ name: 'take-over-ordered' }, reason),
      giveBack: (reason) => this.#agent.order({ name: 'give-back-ordered' }, reason),
      reload: async () =>
        standsIn(this.#agent.state)
          ? { accepted: false, because: 'settings are not changed while the appliance stands in' }
          : reload(),
      resync: (user) => {
        if (user !== undefined && !this.#users.has(user))
          return Promise.resolve({ accepted: false, because: `${user} is no protected account` })
        this.#replicator.reprove(new Set(this.#users.keys()))
        return Promise.resolve({ accepted: true })
      },
    }
  }

  status(): Status {
    const { version, settingsFile, checked, clock } = this.#around
    const { accepted, problems } = checked()
    const uplinkProblem = this.#uplink?.problem
    return statusOf({
      version,
      agent: this.#agent,
      health: this.#health,
      replica: () => this.#replicator.status(),
      mac: () => this.#wire.mac,
      queued: () => this.#mail.queued,
      gathered: () => this.#gathered,
      state: this.#around.paths.state,
      settings: { path: settingsFile, accepted },
      problems: () => [
        ...problems,
        ...[uplinkProblem, this.#asking].filter((problem) => problem !== undefined),
      ],
      date: clock.date,
    })
  }

  #activities(): Partial<Record<State['name'], Activity>> {
    const way = this.#wayBack()
    const standing =
      (activity?: Activity): Activity =>
      async (signal) => {
        await this.#standIn()
        await activity?.(signal)
      }
    return {
      unconfigured: (signal) => this.#findProduction(signal),
      initialization: (signal) => this.#copy(signal),
      'transparent-wait': (signal) => this.#keepInStep(signal),
      failover: standing(),
      'prepare-to-failback': standing(prepareToFailBack(way)),
      failback: standing(drain(way)),
    }
  }

  async #findProduction(signal: AbortSignal): Promise<void> {
    const answering = () =>
      this.#health.status().services.some(({ verdict }) => verdict === 'healthy')
    while (!(answering() && this.#wire.mac !== undefined && this.#dovecots !== undefined))
      await this.#around.clock.sleep(POLL_MS, signal)
    this.#agent.observe(
      { name: 'production-found' },
      'the settings are complete; production answers',
    )
  }

  async #copy(signal: AbortSignal): Promise<void> {
    this.#replicator.resume()
    for (;;) {
      const { accounts, complete, total } = this.#replicator.status()
      const aside = accounts.filter((account) => !account.complete && account.state === 'failing')
      if (complete > 0 && complete + aside.length === total) {
        const because = `${complete} of ${total} accounts are equal to production`
        this.#agent.observe({ name: 'replica-complete' }, because)
        return
      }
      await this.#around.clock.sleep(POLL_MS, signal)
    }
  }

  async #keepInStep(signal: AbortSignal): Promise<void> {
    this.#standing = turnstile()
    await this.#mail.pause()
    const complete = this.#ledger.accounts().filter((account) => account.complete)
    this.#replicator.reprove(new Set(complete.map(({ user }) => user)))
    this.#replicator.resume()
    this.#health.repeat()
    // What could not be handed over at the failback is offered again.
    for (;;) {
      await this.#around.clock.sleep(FLUSH_MS, signal)
      if (this.#mail.queued > 0) await this.#mail.flushToProduction()
    }
  }

  async #standIn(): Promise<void> {
    await this.#replicator.pause()
    this.#mail.resume()
    this.#standing.open()
  }

  #wayBack(): WayBack {
    const { clock, settings } = this.#around
    return {
      clock,
      log: this.#log,
      concurrency: settings.replication.concurrency,
      lingerMs: settings.serving.lingerMs,
      accounts: () =>
        this.#ledger
          .accounts()
          .filter(({ user, gap }) => gap === 'made' && this.#users.has(user))
          .map(({ user }) => user),
      backSync: this.#backSync,
      mail: {
        pause: () => this.#mail.pause(),
        resume: () => this.#mail.resume(),
        emptied: async (signal) => {
          await this.#mail.pause()
          for (let tries = 0; tries < FLUSHES_MAX; tries += 1) {
            if ((await this.#mail.flushToProduction()) === 0) return
            await clock.sleep(1_000, signal)
          }
        },
      },
      frozen: (signal) => this.#frozen.passed(signal),
      liveFlows: () => this.#wire.liveFlows(),
      endSessions: async () => {
        await this.#dovecots?.service.restart()
      },
      release: (user) => this.#backSync.pull(user),
      passing: (error) =>
        error instanceof PeerUnreachable ||
        error instanceof NotGivenBack ||
        error instanceof FolderUnsettled,
      observe: (event, because) => this.#agent.observe(event, because),
    }
  }

  /** Whether a user may be answered; while standing in, not before the account's take-over gap is made. */
  async #admit(user: string): Promise<Admission> {
    if (!this.#users.has(user)) return 'unknown'
    if (!this.#ledger.account(user).complete) return 'unavailable'
    if (standsIn(this.#agent.state)) {
      await this.#standing.passed()
      await this.#backSync.makeGap(user)
    }
    return 'ready'
  }

  async #connectService(service: Service, client: Socket): Promise<void> {
    if (service.protocol === 'smtp' || service.protocol === 'submission')
      return this.#mail.accept(serviceName(service), client)
    const upstream = createConnection({
      host: BACKSTAGE.service,
      port: service.port + DOOR_PORT_OFFSET,
      allowHalfOpen: true,
      noDelay: true,
    })
    upstream.write(proxyLine(client))
    await new Promise<void>((resolve) => {
      let open = 2
      const done = () => {
        open -= 1
        if (open === 0) resolve()
      }
      // Either side may end first; an error of one ends the other, and there is nobody left to tell.
      pipeline(client, upstream, done)
      pipeline(upstream, client, done)
    })
  }

  #judged({ service, verdict, because }: ServiceVerdict): void {
    this.#log('info', 'service.judged', { service, verdict, because })
    const reason = `${service} ${because}`
    if (verdict === 'healthy') {
      this.#remember(service)
      this.#agent.observe({ name: 'service-healthy', service }, reason)
    } else if (verdict === 'suspected')
      this.#agent.observe({ name: 'service-suspected', service }, reason)
    else {
      const essential = essentialOf(this.#around.settings).has(service)
      this.#agent.observe({ name: 'service-failed', service, essential }, reason)
    }
  }

  #remember(service: ServiceName): void {
    const { facts } = this.#made
    const answered = facts.learned.answered ?? []
    if (answered.includes(service)) return
    facts.learn({ answered: [...answered, service] }).catch((error: unknown) => {
      this.#log('error', 'fact.not-kept', { service, problem: String(error) })
    })
  }

  #reported(state: State): void {
    this.#health.standingIn(standsIn(state))
    if (state.name === 'prepare-to-failback' && state.barrier) this.#frozen.open()
    else if (this.#frozen.isOpen) this.#frozen = turnstile()
    this.#uplink?.state(this.status())
  }

  async #watchWire(signal: AbortSignal): Promise<void> {
    const { settings } = this.#around
    const { domains } = settings.production
    const triggers = new Triggers({
      services: settings.production.services,
      resolve: (address) => {
        const found = resolve(address, settings, this.#users)
        if (typeof found === 'object') return found.users
        const user = accountOf(address, domains, this.#users)
        return user === undefined ? [] : [user]
      },
      hint: (user, path) => this.#replicator.hint(user, path),
    })
    const replay = new Replay({ settings, log: this.#log })
    await Promise.all([
      replay.run(signal),
      watchCarrier(
        { interface: settings.wire.production, log: this.#log },
        (up) => this.#health.carrier(up),
        signal,
      ),
      capture(
        { settings, log: this.#log },
        (segment) => {
          replay.segment(segment)
          this.#health.segment(segment)
          triggers.segment(segment)
        },
        signal,
      ),
    ])
  }

  /** Production may return with another MAC address: then it is ours too. */
  async #follow(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const mac = await this.#wire.productionMac()
      if (mac !== undefined && mac !== this.#wire.mac) {
        this.#log('info', 'production.moved', { from: this.#wire.mac, to: mac })
        await this.#wire.followMac(mac)
        await this.#made.facts.learn({ mac })
      }
      const pause = this.#wire.mac === undefined ? POLL_MS : FOLLOW_MS
      await this.#around.clock.sleep(pause, signal).catch(() => undefined)
    }
  }

  async #gather(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const wire = await this.#wire.verify()
      for (const difference of wire) this.#log('error', 'wire.differed', { difference })
      if (wire.length > 0) await this.#wire.prepare(undefined, this.#agent.posture)
      const standing = standsIn(this.#agent.state)
      const made = this.#ledger.accounts().filter(({ gap }) => gap === 'made')
      let unbound = 0
      if (standing)
        for (const { user } of made)
          unbound += await this.#backSync.unbound(user).catch(whenUnreachable(0))
      const liveFlows = standing ? await this.#wire.liveFlows() : 0
      const { bavail, bsize } = await statfs(this.#around.paths.state)
      this.#gathered = { liveFlows, unbound, wire, freeBytes: bavail * bsize }
      this.#uplink?.state(this.status())
      const pauseMs = GATHER_MS[standing ? 'standingIn' : 'watching']
      await this.#around.clock.sleep(pauseMs, signal).catch(() => undefined)
    }
  }
}

type Dovecots = { readonly replicator: Dovecot; readonly service: Dovecot }

const oracleSocket = ({ run }: Paths): string => join(run, 'oracle')

/** A peer that does not answer, or not as asked: said in the status, and tried again. */
const isRefusal = (error: unknown): error is Error =>
  error instanceof PeerUnreachable ||
  error instanceof CredentialRefused ||
  error instanceof CertificateUnexpected

/** Another value when a peer is away for now. */
const whenUnreachable =
  <T>(instead: T) =>
  (error: unknown): T => {
    if (error instanceof PeerUnreachable) return instead
    throw error
  }

/** PROXY protocol, version 1 (https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt §2.1). */
function proxyLine(client: Socket): string {
  const plain = (address = '') => address.replace(/^::ffff:/, '')
  const [from, to] = [plain(client.remoteAddress), plain(client.localAddress)]
  const family = from.includes(':') ? 'TCP6' : 'TCP4'
  return `PROXY ${family} ${from} ${to} ${client.remotePort} ${client.localPort}\r\n`
}

/** Waits for all parts; the first that fails ends all, and its error is the one that is thrown. */
async function ended(parts: readonly Promise<void>[], stop: AbortController): Promise<void> {
  let first: { readonly error: unknown } | undefined
  await Promise.all(
    parts.map((part) =>
      part.catch((error: unknown) => {
        first ??= { error }
        stop.abort()
      }),
    ),
  )
  if (first !== undefined) throw first.error
}
