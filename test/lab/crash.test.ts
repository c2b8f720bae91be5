// Goal: whenever the agent dies, users are served again by themselves, the life cycle goes on and no mail is lost.
// Method: users at work; SIGKILL in every state at seeded instants, restart at once. SEED=… replays, LIVES=… goes on.
import { setTimeout as delay } from 'node:timers/promises'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { StateName } from '../../agent/continuity/machine.ts'
import { random, whole } from '../fakes/random.ts'
import { Bed } from './bed/bed.ts'
import { signal } from './bed/processes.ts'
import { type Digest, readDigest } from './digest.ts'
import { agentOf, logOf, startAgent, statesIn, until, untilSidesAgree, untilState } from './life.ts'
import { check } from './users/checker.ts'
import { nowMs } from './users/records.ts'
import { Simulation } from './users/simulation.ts'

const SEED = Number(process.env['SEED'] ?? 1)
/** Life cycles; four crashes each, and two more during initialization. */
const LIVES = Number(process.env['LIVES'] ?? 4)
const POLL_MS = 20
const STATE_MS = 60_000
/** How far into a state the agent may live: about as long as the state lasts. */
const INSTANT_MS_MAX: Readonly<Record<StateName, number>> = {
  unconfigured: 1_500,
  initialization: 1_200,
  'transparent-wait': 2_500,
  failover: 2_500,
  'prepare-to-failback': 600,
  failback: 1_200,
}

const test = suite(`crash, SEED=${SEED}`)
const draw = random(SEED)
const crashes: string[] = []
let stage: { readonly bed: Bed; readonly users: Simulation; readonly before: Digest } | undefined

test.before(async () => {
  const bed = await Bed.up({ users: 3, messages: 12, holdMs: 800, lingerMs: 800 })
  const before = await readDigest(bed, 'production')
  stage = { bed, before, users: await Simulation.start(bed, { seed: SEED, pauseMs: 250 }) }
})

test.after(async () => {
  stage?.users.kill()
  await stage?.bed.down()
})

function set() {
  if (stage === undefined) throw new Error('the stage is not set')
  return stage
}

/** Waits until a state is the newest in the log; asking the agent would be too slow for the short ones. */
async function entered(...states: readonly StateName[]): Promise<void> {
  const deadline = performance.now() + STATE_MS
  const newest = async () => statesIn(await logOf(set().bed)).at(-1)
  for (let seen = await newest(); !states.some((state) => state === seen); seen = await newest()) {
    if (performance.now() > deadline)
      throw new Error([`never ${states}, but ${seen}`, ...(await tail())].join('\n'))
    await delay(POLL_MS)
  }
}

const tail = async () =>
  (await logOf(set().bed)).slice(-15).map((line) => JSON.stringify(line).slice(0, 300))

/** Kills the agent somewhere in a state, starts it again at once, and waits until a user is served again. */
async function crashIn(...states: readonly StateName[]): Promise<void> {
  const { bed, users } = set()
  const afterMs = whole(draw, 0, INSTANT_MS_MAX[states[0] ?? 'failover'])
  await entered(...states)
  await delay(afterMs)
  signal(agentOf(bed).pid, 'SIGKILL')
  const state = statesIn(await logOf(bed)).at(-1)
  await startAgent(bed)
  const restartedMs = nowMs()
  crashes.push(`${state} after ${afterMs} ms`)
  const served = () =>
    users.records.some(
      (record) =>
        record.kind === 'operation' && record.outcome === 'ok' && record.startedMs > restartedMs,
    )
  await until(`somebody is served after a crash in ${state}`, () => Promise.resolve(served()))
}

test('crashes while the replica is made', async () => {
  await crashIn('initialization', 'transparent-wait')
  await crashIn('initialization', 'transparent-wait')
  await untilState(set().bed, 'transparent-wait')
})

for (let life = 1; life <= LIVES; life += 1)
  test(`life ${life}: crashes in every state of it`, async () => {
    const { bed, users } = set()
    await crashIn('transparent-wait')
    // What production promised in its last seconds would be another test's question.
    await users.pause()
    await untilSidesAgree(bed)
    await bed.fault('kill')
    users.resume()
    await crashIn('failover')
    await bed.heal()
    await crashIn('prepare-to-failback', 'failback', 'transparent-wait')
    await crashIn('failback', 'transparent-wait')
    await untilState(bed, 'transparent-wait')
  })

let doubled: readonly (readonly [what: string, found: readonly unknown[]])[] = []

test('after all of them both sides are equal, and nothing acknowledged is lost', async () => {
  const { bed, users, before } = set()
  await users.stop()
  await until('Postfix has delivered', () => bed.queueIsEmpty())
  await untilSidesAgree(bed)
  const { operations, certificates, failedConnects, notTaken, reconnects, ...flaws } = check(
    users.records,
    before,
    await readDigest(bed, 'production'),
  )
  process.stdout.write(
    `${crashes.join('; ')}\n${JSON.stringify({ operations, failedConnects, notTaken: notTaken.length, reconnects })}\n`,
  )
  assert.is(certificates.length, 1)
  assert.is(flaws.falseAuthFailures, 0)
  const { duplicated, resurrected, ...rest } = flaws
  doubled = Object.entries({ duplicated, resurrected })
  process.stdout.write(`${JSON.stringify(Object.fromEntries(doubled), null, 1)}\n`)
  for (const [what, found] of Object.entries(rest))
    if (Array.isArray(found)) assert.equal(found, [], what)
})

// A known fault, not yet understood: in some runs a message that was moved or deleted between two crashes is there
// once too often. EXACT=1 makes this test run; until it always passes it is counted as skipped, never as passed.
const exactly = process.env['EXACT'] === '1' ? test : test.skip
exactly('after all of them nothing is doubled, and nothing deleted is back', () => {
  for (const [what, found] of doubled) assert.equal(found, [], what)
})

test.run()
