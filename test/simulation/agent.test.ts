// Goal: in whatever order the world speaks, and wherever the agent is killed, the real loop keeps its promises.
// Method: seeded walks of events, passing time and crashes over a fake journal and a fake kernel; SEED=7 replays one seed.
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { Agent, type Parts } from '../../agent/agent.ts'
import { type Event, postureOf, resumed, type StateName } from '../../agent/continuity/machine.ts'
import type { Posture } from '../../agent/continuity/posture.ts'
import type { Entry } from '../../agent/journal.ts'
import { FakeClock, settled } from '../fakes/clock.ts'
import { random } from '../fakes/random.ts'

const services = ['imap:143', 'smtp:25'] as const
const EVENTS: readonly Event[] = [
  { name: 'production-found' },
  { name: 'replica-complete' },
  { name: 'service-suspected', service: 'imap:143' },
  { name: 'service-healthy', service: 'imap:143' },
  { name: 'service-failed', service: 'imap:143', essential: true },
  { name: 'service-failed', service: 'smtp:25', essential: false },
  { name: 'production-returned' },
  { name: 'take-over-ordered' },
  { name: 'give-back-ordered' },
  { name: 'back-sync-converged' },
  { name: 'sides-agreed' },
  { name: 'barrier-missed' },
  { name: 'flows-drained' },
]
const EXPIRY_MS = 3_000
const LEGAL: Readonly<Record<StateName, readonly StateName[]>> = {
  unconfigured: ['initialization'],
  initialization: ['transparent-wait'],
  'transparent-wait': ['failover'],
  failover: ['prepare-to-failback'],
  'prepare-to-failback': ['failover', 'failback'],
  failback: ['failover', 'transparent-wait'],
}

/** The medium and the kernel: what survives the agent. */
class World {
  readonly clock = new FakeClock()
  readonly entries: Entry[] = []
  full = false
  #posture: Posture = { name: 'bare' }
  #armedAtMs = 0

  /** What the kernel does at this moment: ownership that nobody re-arms runs out. */
  get posture(): Posture {
    const expired = this.clock.now() - this.#armedAtMs > EXPIRY_MS
    return expired ? { name: 'bare' } : this.#posture
  }

  parts(seed: number): Parts {
    return {
      clock: this.clock,
      log: () => {},
      policy: { takeOver: 'automatic', giveBack: 'automatic' },
      services,
      journal: {
        last: this.entries.at(-1),
        enter: (entry) => {
          if (this.full) return Promise.reject(new Error('ENOSPC'))
          const from = this.entries.at(-1)?.state ?? 'unconfigured'
          assert.ok(LEGAL[from].includes(entry.state), `seed ${seed}: ${from} → ${entry.state}`)
          this.entries.push(entry)
          return Promise.resolve()
        },
      },
      wire: {
        apply: (posture) => {
          const journalled = postureOf(resumed(this.entries.at(-1)?.state ?? 'unconfigured'))
          assert.is(posture.name, journalled.name, `seed ${seed}: the wire is ahead of the journal`)
          this.#posture = posture
          this.#armedAtMs = this.clock.now()
          return Promise.resolve()
        },
        rearm: () => {
          this.#armedAtMs = this.clock.now()
          return Promise.resolve()
        },
      },
      door: { suspect: () => {}, verdict: () => {} },
      activities: {},
      report: () => {},
    }
  }
}

async function walk(seed: number): Promise<void> {
  const draw = random(seed)
  const world = new World()
  let stop = new AbortController()
  let agent = new Agent(world.parts(seed))
  let running = agent.run(stop.signal)
  for (let step = 0; step < 60; step += 1) {
    const pick = draw()
    if (pick < 0.05) {
      stop.abort()
      await running
      if (draw() < 0.3) {
        await world.clock.pass(EXPIRY_MS + 1)
        assert.is(world.posture.name, 'bare', `seed ${seed}: a dead agent holds traffic`)
      }
      stop = new AbortController()
      agent = new Agent(world.parts(seed))
      running = agent.run(stop.signal)
      await settled()
    } else if (pick < 0.1) {
      world.full = !world.full
    } else {
      const event = EVENTS[Math.floor(draw() * EVENTS.length)]
      if (event !== undefined) agent.observe(event, 'the simulation')
    }
    await world.clock.pass(draw() * 2_000)
    const journalled = world.entries.at(-1)?.state ?? 'unconfigured'
    assert.is(agent.state.name, journalled, `seed ${seed}: state and journal disagree`)
    assert.equal(world.posture, postureOf(agent.state), `seed ${seed}: the kernel disagrees`)
  }
  stop.abort()
  await running
}

const test = suite('agent simulation')
const only = process.env['SEED']
const seeds = only === undefined ? Array.from({ length: 2000 }, (_, seed) => seed) : [Number(only)]

test(`${seeds.length} seeded walks of the loop, with crashes and a full disk`, async () => {
  for (const seed of seeds) await walk(seed)
})

test.run()
