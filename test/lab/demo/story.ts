import { readFile } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { CommandFailed } from '../../../firmware/command.ts'
import type { Bed } from '../bed/bed.ts'
import { inBed } from '../bed/record.ts'
import { type Comparison, compare, type Digest, readDigest, whole } from '../digest.ts'
import { check, type Verdict } from '../users/checker.ts'
import { nowMs } from '../users/records.ts'
import { Simulation } from '../users/simulation.ts'
import { Happenings, NeverCame, type StateEntry } from './happenings.ts'
import type { Chapter, Mark, Tale } from './tale.ts'

/** What is read of the appliance's status (agent/console/status.ts). */
type Status = {
  readonly accounts: {
    readonly total: number
    readonly complete: number
    readonly failing: unknown[]
  }
  readonly problems: readonly { readonly where: string; readonly what: string }[]
}

/** Tells one line of what happens, at its time. */
export type Narrate = (atMs: number, text: string) => void

const ASK_EVERY_MS = 20
/** Busy people: each does something about once a second. */
const PAUSE_MS = 1_000
const CALM_MS = 5_000
const EQUAL_WITHIN_MS = 20_000
const INITIALIZATION_MS = 90_000
const FAILOVER_MS = 30_000
const GIVE_BACK_MS = 90_000
const COMPLAINTS_MAX = 6
const STANDING_IN = ['failover', 'prepare-to-failback', 'failback']

const MEANINGS: Readonly<Record<string, string>> = {
  initialization: 'the appliance copies every mailbox; users notice nothing',
  'transparent-wait': 'the replica is complete; the appliance is a piece of wire and watches',
  failover: 'the appliance answers in production’s place: same address, certificate and passwords',
  'prepare-to-failback': 'production is back; what happened meanwhile is written back to it',
  failback: 'both sides are equal: new connections go to production, live ones finish here',
}

const DEEDS = {
  kill: { label: 'servers killed', told: 'all of production’s mail servers die at once (kill -9)' },
  'link-down': { label: 'cable pulled', told: 'production’s network cable is pulled' },
} as const

/** One whole life: replicate, fail, stand in, give back; twice, by two kinds of failure. */
export class Story {
  readonly #bed: Bed
  readonly #narrate: Narrate
  readonly #signal: AbortSignal
  readonly #startedMs: number
  readonly #happenings: Happenings
  readonly #marks: Mark[] = []
  readonly #chapters: Chapter[] = []
  readonly #rests: { fromMs: number; toMs: number }[] = []
  /** What each comparison of production and replica found. */
  readonly equal: boolean[] = []
  #users: Simulation | undefined
  #before: Digest = {}
  #progress = ''

  constructor(bed: Bed, startedMs: number, narrate: Narrate, signal: AbortSignal) {
    this.#bed = bed
    this.#startedMs = startedMs
    this.#narrate = narrate
    this.#signal = signal
    const log = inBed(bed.record, 'appliance', 'agent.log')
    this.#happenings = new Happenings(
      log,
      () => bed.agentIsAlive,
      (entry) => this.#tellState(entry),
    )
  }

  /** Everything that happened until now. */
  get tale(): Tale {
    return {
      startedMs: this.#startedMs,
      endedMs: nowMs(),
      states: this.#happenings.states,
      marks: this.#marks,
      chapters: this.#chapters,
      rests: this.#rests,
      users: this.#bed.record.accounts.map(({ user }) => user),
      records: this.#users?.records ?? [],
    }
  }

  /** @throws {NeverCame} */
  async tell(useMs: Readonly<Record<Chapter['fault'], number>>): Promise<void> {
    this.#before = whole(await readDigest(this.#bed, 'production'))
    this.#users = await Simulation.start(this.#bed, {
      pauseMs: PAUSE_MS,
      asker: { everyMs: ASK_EVERY_MS, login: false },
    })
    const { length } = this.#bed.record.accounts
    this.#say(
      `${length} people begin to work: they read, file, delete, send; nobody will tell them`,
    )
    await this.#happenings.until('transparent-wait', {
      sinceMs: this.#startedMs,
      withinMs: INITIALIZATION_MS,
      signal: this.#signal,
      meanwhile: () => this.#sayProgress(),
    })
    await this.#calm(CALM_MS)
    await this.#compare()
    await this.#chapter('kill', useMs.kill)
    await this.#chapter('link-down', useMs['link-down'])
  }

  /** Ends the users' work and compares what they were promised with what whoever serves them holds. */
  async settle(): Promise<Verdict> {
    await this.#users?.stop()
    const state = this.#happenings.states.at(-1)?.name ?? ''
    const standingIn = this.#bed.agentIsAlive && STANDING_IN.includes(state)
    if (!standingIn) await this.#queueEmpties()
    const after = whole(await readDigest(this.#bed, standingIn ? 'replica' : 'production'))
    return check(this.#users?.records ?? [], this.#before, after)
  }

  /** What the appliance has to say when something did not come: its problems, and the gravest of its log. */
  async complaints(): Promise<string[]> {
    const log = await readFile(inBed(this.#bed.record, 'appliance', 'agent.log'), 'utf8')
    const grave = log.split('\n').filter((line) => /"level":"(warn|error)"/.test(line))
    const problems = await this.#status().then(
      (status) => status.problems.map(({ where, what }) => `${where}: ${what}`),
      (error: unknown) => {
        if (error instanceof CommandFailed) return [error.stderr.trim()]
        throw error
      },
    )
    return [...problems.slice(0, COMPLAINTS_MAX), ...grave.slice(-COMPLAINTS_MAX)]
  }

  /** Ends what may still run, at once. */
  abandon(): void {
    this.#users?.kill()
  }

  async #chapter(fault: Chapter['fault'], useMs: number): Promise<void> {
    const faultMs = this.#mark('fault', DEEDS[fault].label)
    this.#narrate(faultMs, DEEDS[fault].told)
    await this.#bed.fault(fault)
    const { atMs: failoverMs } = await this.#reach('failover', faultMs, FAILOVER_MS)
    const place = this.#chapters.push({ fault, faultMs, failoverMs }) - 1
    this.#say(`people go on working for ${useMs / 1_000} s, on the appliance`)
    await this.#calm(useMs)

    const healMs = this.#mark('heal', 'repaired')
    this.#say('production is repaired')
    await this.#bed.heal()
    this.#chapters[place] = { fault, faultMs, failoverMs, healMs }
    await this.#reach('prepare-to-failback', healMs, GIVE_BACK_MS)
    await this.#reach('failback', healMs, GIVE_BACK_MS)
    const back = await this.#reach('transparent-wait', healMs, GIVE_BACK_MS)
    this.#chapters[place] = { fault, faultMs, failoverMs, healMs, backMs: back.atMs }
    await this.#calm(CALM_MS)
    await this.#compare()
  }

  #reach(name: string, sinceMs: number, withinMs: number): Promise<StateEntry> {
    return this.#happenings.until(name, { sinceMs, withinMs, signal: this.#signal })
  }

  #mark(kind: Mark['kind'], label: string): number {
    const atMs = nowMs()
    this.#marks.push({ kind, label, atMs })
    return atMs
  }

  async #calm(ms: number): Promise<void> {
    await delay(ms, undefined, { signal: this.#signal })
  }

  /** While everybody rests, both sides must come to hold the same, and soon. */
  async #compare(): Promise<void> {
    this.#say('everybody rests for a moment, so that both sides can be compared')
    const fromMs = nowMs()
    await this.#users?.pause()
    await this.#queueEmpties()
    const deadline = performance.now() + EQUAL_WITHIN_MS
    for (;;) {
      this.#signal.throwIfAborted()
      const sides = [readDigest(this.#bed, 'production'), readDigest(this.#bed, 'replica')] as const
      const comparison = compare(...(await Promise.all(sides)))
      if (comparison.identical || performance.now() > deadline) {
        this.equal.push(comparison.identical)
        this.#say(
          comparison.identical
            ? 'compared: production and replica hold the same, to the last UID, flag and byte'
            : `compared: the sides differ: ${firstDifference(comparison)}`,
        )
        break
      }
    }
    this.#users?.resume()
    this.#rests.push({ fromMs, toMs: nowMs() })
  }

  async #queueEmpties(): Promise<void> {
    const deadline = performance.now() + EQUAL_WITHIN_MS
    while (!(await this.#bed.queueIsEmpty())) {
      if (performance.now() > deadline) throw new NeverCame('production’s queue does not empty')
      await delay(200, undefined, { signal: this.#signal })
    }
  }

  async #sayProgress(): Promise<void> {
    const status = await this.#status()
    const { total, complete, failing } = status.accounts
    const trouble = failing.length === 0 ? '' : `, ${failing.length} failing`
    const progress = `${complete} of ${total} mailboxes are complete${trouble}`
    await this.#happenings.look()
    if (progress !== this.#progress) this.#say(`… ${progress}`)
    this.#progress = progress
  }

  async #status(): Promise<Status> {
    return JSON.parse(await this.#bed.ask('status', '--json')) as Status
  }

  #tellState({ name, atMs, because }: StateEntry): void {
    this.#narrate(atMs, `${name}: ${MEANINGS[name] ?? ''} (${because})`)
  }

  #say(text: string): void {
    this.#narrate(nowMs(), text)
  }
}

function firstDifference({ accounts, unreadable }: Comparison): string {
  for (const [user, reason] of Object.entries(unreadable)) return `${user}, ${reason}`
  for (const [user, folders] of Object.entries(accounts))
    for (const [folder, { differences }] of Object.entries(folders))
      if (differences.length > 0) return `${user}, ${folder}, ${differences[0]}`
  return 'in what is subscribed'
}
