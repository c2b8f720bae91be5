// Goal: neither jump the gun nor miss: what passes by itself is never called failed, and every real cut is, in time.
// Method: the real Health on a fake clock against a seeded fake production with users; SEED=7 replays one seed.
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { settingsFrom } from '../../agent/config.ts'
import { Health, type ServiceVerdict } from '../../agent/health/health.ts'
import { POLICIES, type PolicyName } from '../../agent/health/policy.ts'
import type { Clock } from '../../firmware/clock.ts'
import { milliseconds } from '../../firmware/units.ts'
import { FakeClock, settled } from '../fakes/clock.ts'
import { FakeProduction } from '../fakes/production.ts'
import { pick, random, whole } from '../fakes/random.ts'

const test = suite('judgement in simulation')
const TRACES = 1_000
const seeds = (count: number): number[] =>
  process.env['SEED'] === undefined
    ? Array.from({ length: count }, (_, seed) => seed)
    : [Number(process.env['SEED'])]

/** The appliance's own clock: its program may stall while the world goes on. */
class ApplianceClock implements Clock {
  readonly #world: FakeClock
  #aheadMs = 0

  constructor(world: FakeClock) {
    this.#world = world
  }

  stall(ms: number): void {
    this.#aheadMs += ms
  }

  now = () => milliseconds(this.#world.now() + this.#aheadMs)
  date = () => this.#world.date()
  sleep = (ms: number, signal?: AbortSignal) => this.#world.sleep(ms, signal)
}

/** One appliance that watches one fake production. */
class World {
  readonly clock = new FakeClock()
  readonly appliance = new ApplianceClock(this.clock)
  readonly draw: () => number
  readonly production: FakeProduction
  readonly health: Health
  readonly verdicts: ServiceVerdict[] = []
  readonly returnedAtMs: number[] = []
  readonly #settings
  readonly #ending = new AbortController()
  readonly #running: Promise<void>
  readonly #users: Promise<void>[] = []

  constructor(seed: number, policy: PolicyName = 'default', holdMs = 60_000) {
    this.draw = random(seed)
    this.#settings = settingsFrom(SETTINGS(policy, holdMs), 'test')
    this.production = new FakeProduction(this.clock, this.draw, this.#ending.signal)
    this.health = new Health({
      settings: this.#settings,
      log: () => {},
      clock: this.appliance,
      reach: this.production,
      on: (verdict) => this.verdicts.push(verdict),
      returned: () => this.returnedAtMs.push(this.clock.now()),
    })
    this.#running = this.health.run(this.#ending.signal)
    this.health.carrier(true)
  }

  /** Users who come and go. */
  populate(count: number): void {
    for (let number = 0; number < count; number++) this.#users.push(this.#user(number))
  }

  get failed(): readonly ServiceVerdict[] {
    return this.verdicts.filter(({ verdict }) => verdict === 'failed')
  }

  async close(): Promise<void> {
    this.#ending.abort()
    await settled()
    await this.#running
    await Promise.all(this.#users)
  }

  async #user(number: number): Promise<void> {
    const { signal } = this.#ending
    for (let port = 40_000; !signal.aborted; port++) {
      const service = pick(this.draw, this.#settings.production.services)
      const client = `10.77.0.${number + 20}:${port}`
      await this.production.user(service, client, (segment) => this.health.segment(segment))
      await this.clock.sleep(whole(this.draw, 100, 3_000), signal).catch(() => undefined)
    }
  }
}

const SETTINGS = (policy: PolicyName, holdMs: number) => ({
  production: {
    addresses: [{ ipv4: '10.77.0.2' }],
    hostname: 'mail.example.test',
    domains: ['example.test'],
    services: [
      { port: 143, protocol: 'imap', tls: 'none' },
      { port: 25, protocol: 'smtp', tls: 'none' },
    ],
    admin: { user: 'admin', passwordFile: '/dev/null' },
    tls: { certificateFile: '/dev/null', keyFile: '/dev/null' },
  },
  accounts: { passwdFile: '/dev/null' },
  wire: { management: { mac: '02:00:00:00:00:01', ipv4: 'dhcp' } },
  judgement: { policy, holdMs },
})

/** What passes by itself, and must never be called a failure at the default policy. */
const NUISANCES: Readonly<Record<string, (world: World) => Promise<void>>> = {
  'packet loss': async ({ clock, production }) => {
    production.loss = 0.05
    await clock.pass(10_000)
    production.loss = 0
  },
  stall: async ({ clock, production, draw }) => {
    production.stop()
    await clock.pass(whole(draw, 100, 1_500))
    production.go()
  },
  'stall of the path': async ({ clock, production, draw }) => {
    production.cut()
    await clock.pass(whole(draw, 100, 1_500))
    production.mend()
  },
  reload: async ({ clock, production, draw }) => {
    production.kill()
    await clock.pass(whole(draw, 1, 50))
    production.go()
  },
  restart: async ({ clock, production, draw }) => {
    production.kill()
    await clock.pass(whole(draw, 100, 1_000))
    production.go()
  },
  'CPU storm': async ({ clock, production, draw }) => {
    production.stormMs = whole(draw, 50, 800)
    await clock.pass(8_000)
    production.stormMs = 0
  },
  'carrier flap': async ({ clock, production, health }) => {
    health.carrier(false)
    production.cut()
    await clock.pass(300)
    health.carrier(true)
    production.mend()
  },
}

test('what passes by itself is never called a failure', async () => {
  for (const seed of seeds(TRACES)) {
    const world = new World(seed)
    world.populate(whole(world.draw, 0, 5))
    await world.clock.pass(whole(world.draw, 1_000, 7_000))
    const names: string[] = []
    for (let count = 0; count < 3; count++) {
      const name = pick(world.draw, Object.keys(NUISANCES))
      names.push(name)
      await NUISANCES[name]?.(world)
      await world.clock.pass(whole(world.draw, 3_000, 6_000))
    }
    const told = `SEED=${seed} ${names.join(', ')}: ${JSON.stringify(world.verdicts)}`
    assert.equal(world.failed, [], told)
    for (const { service, verdict } of world.health.status().services)
      assert.is(verdict, 'healthy', `${service} ${told}`)
    await world.close()
  }
})

test('a stall of the appliance itself is no silence of production', async () => {
  for (const seed of seeds(100)) {
    const world = new World(seed)
    await world.clock.pass(whole(world.draw, 6_000, 12_000))
    world.production.stop()
    await world.clock.pass(whole(world.draw, 50, 1_200))
    world.appliance.stall(whole(world.draw, 500, 20_000))
    await world.clock.pass(whole(world.draw, 1, 200))
    world.production.go()
    await world.clock.pass(5_000)
    assert.equal(world.failed, [], `SEED=${seed} ${JSON.stringify(world.verdicts)}`)
    await world.close()
  }
})

const CUTS = {
  'link-down': { limit: 'linkMs', becomes: /link/ },
  kill: { limit: 'refusedMs', becomes: /refused/ },
  stop: { limit: 'silentMs', becomes: /no answer/ },
  blackhole: { limit: 'silentMs', becomes: /no answer/ },
} as const
/** The longest time in which nobody asks anything when all is well: a NOOP a second. */
const ASKING_EVERY_MS = 1_000

test('every real cut is found within the policy’s time and the interval of asking', async () => {
  for (const policy of ['aggressive', 'default', 'lax'] as const)
    for (const cut of ['link-down', 'kill', 'stop', 'blackhole'] as const)
      for (const seed of seeds(25)) {
        const world = new World(seed, policy)
        world.populate(whole(world.draw, 0, 3))
        await world.clock.pass(whole(world.draw, 6_000, 12_000))
        const cutMs = world.clock.now()
        inflict(world, cut)
        const limitMs = POLICIES[policy][CUTS[cut].limit]
        await world.clock.pass(limitMs + ASKING_EVERY_MS + 100)
        const told = `SEED=${seed} ${policy} ${cut}: ${JSON.stringify(world.verdicts)}`
        const found = world.failed.find(({ service }) => service === 'imap:143')
        assert.ok(found !== undefined && found.atMs - cutMs >= limitMs - 1, told)
        assert.match(found.because, CUTS[cut].becomes, told)
        await world.clock.pass(POLICIES[policy].noticeMs + ASKING_EVERY_MS)
        assert.ok(
          world.failed.some(({ service }) => service === 'smtp:25'),
          told,
        )
        await world.close()
      }
})

function inflict({ production, health }: World, cut: keyof typeof CUTS): void {
  if (cut === 'kill') production.kill()
  if (cut === 'stop') production.stop()
  if (cut === 'link-down' || cut === 'blackhole') production.cut()
  if (cut === 'link-down') health.carrier(false)
}

test('a production that flaps is not given its users back until it has been stable', async () => {
  for (const policy of ['aggressive', 'default', 'lax'] as const) {
    const world = new World(1, policy, 60_000)
    await world.clock.pass(6_000)
    world.production.kill()
    await world.clock.pass(POLICIES[policy].refusedMs + 1_000)
    world.health.standingIn(true)
    for (let flaps = 0; flaps < 10; flaps++) {
      world.production.go()
      await world.clock.pass(20_000)
      if (flaps % 2 === 0) world.production.kill()
      else world.production.stop()
      await world.clock.pass(20_000)
    }
    assert.equal(world.returnedAtMs, [], policy)
    assert.is(world.verdicts.at(-1)?.verdict, 'failed')
    world.production.go()
    const stableMs = world.clock.now()
    await world.clock.pass(59_000)
    assert.equal(world.returnedAtMs, [], policy)
    await world.clock.pass(6_000)
    assert.is(world.returnedAtMs.length, 1, policy)
    assert.ok((world.returnedAtMs[0] ?? 0) - stableMs >= 60_000)
    await world.close()
  }
})

test('a return that nobody acts upon is said again after another hold time', async () => {
  const world = new World(1, 'default', 10_000)
  await world.clock.pass(6_000)
  world.health.standingIn(true)
  await world.clock.pass(45_000)
  assert.is(world.returnedAtMs.length, 4)
  world.health.standingIn(false)
  await world.clock.pass(30_000)
  assert.is(world.returnedAtMs.length, 4)
  await world.close()
})

test.run()
