// Goal: giving a folder back loses nothing, doubles nothing, resurrects nothing and never reuses a UID, wherever it is cut off.
// Method: random histories of both servers in memory, the agent killed after any write; invariants on what is left.
import fc from 'fast-check'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { FolderPush } from '../../agent/replica/mail/backsync-folder.ts'
import type { Letter } from '../../agent/replica/mail/backsync-sides.ts'
import { PAD_HEADER, Stranger } from '../../agent/replica/mail/backsync-sides.ts'
import type { Flags } from '../../agent/replica/mail/merge.ts'
import { FakeBaseline, FakeFolder, Fuse, Killed } from '../fakes/mail-folder.ts'

const test = suite('back-sync of a folder')

const letter = (id: string, withId = true): Letter => ({
  internalDate: `date of ${id}`,
  body: Buffer.from(`${withId ? `Message-ID: <${id}>\n` : ''}Subject: ${id}\n\nbody of ${id}`),
})
const nameOf = (body: Buffer): string => body.toString().split('body of ')[1] ?? 'pad'

class World {
  readonly production = new FakeFolder()
  readonly appliance = new FakeFolder()
  readonly baseline = new FakeBaseline()
  #letters = 0
  /** Letters that production got by itself, and those that it expunged of the common ones. */
  readonly orphans = new Set<string>()
  readonly expungedThere = new Set<string>()
  readonly expungedHere = new Set<string>()
  readonly doubled = new Set<string>()
  isSetBack = false
  #handed = 0

  constructor(initial: readonly Flags[], unseen: number, gap: number) {
    this.production.modSeq = 1_000n
    for (const flags of initial) {
      const mail = this.#letter()
      this.production.deliver(mail, flags)
      this.baseline.known.set(this.appliance.deliver(mail, flags), [...flags].sort())
    }
    this.appliance.modSeq = this.production.modSeq + 10n
    this.appliance.uidNext += gap
    this.baseline.heardOf = {
      uidNext: this.production.uidNext,
      highestModSeq: this.production.modSeq,
    }
    for (let n = 0; n < unseen; n += 1) this.deliverThere()
  }

  #letter(): Letter {
    this.#letters += 1
    return letter(`m${this.#letters}`, this.#letters % 3 !== 0)
  }

  deliverHere(): void {
    this.appliance.deliver(this.#letter(), ['\\Seen'])
  }

  deliverThere(): void {
    const mail = this.#letter()
    this.orphans.add(nameOf(mail.body))
    this.production.deliver(mail)
  }

  deliverBoth(): void {
    const mail = this.#letter()
    this.doubled.add(nameOf(mail.body))
    this.production.deliver(mail)
    this.appliance.deliver(mail)
  }

  copyHere(n: number): void {
    const uid = pickOf(this.appliance, n)
    const message = this.appliance.messages.get(uid)
    if (message !== undefined) this.appliance.deliver(message.letter, message.flags)
  }

  removeHere(n: number): void {
    const uid = pickOf(this.appliance, n)
    const message = this.appliance.messages.get(uid)
    if (message === undefined) return
    this.expungedHere.add(nameOf(message.letter.body))
    this.appliance.remove(uid)
  }

  removeThere(n: number): void {
    const uid = pickOf(this.production, n)
    const message = this.production.messages.get(uid)
    if (message === undefined || !(this.baseline.known.has(uid) || this.#isOrphan(message.letter)))
      return
    const name = nameOf(message.letter.body)
    if (!this.orphans.delete(name)) this.expungedThere.add(`${uid} ${name}`)
    this.production.remove(uid)
  }

  /** Production loses its youngest messages, as after a restore from a backup. */
  setBack(count: number): void {
    if (this.#handed > 0) return
    this.isSetBack = true
    for (const uid of [...this.production.messages.keys()].slice(-count)) {
      const message = this.production.messages.get(uid)
      if (message === undefined) continue
      this.orphans.delete(nameOf(message.letter.body))
      this.doubled.delete(nameOf(message.letter.body))
      this.production.messages.delete(uid)
      this.production.uidNext = uid
    }
    this.production.modSeq = 1n
  }

  /**
   * Pushes; the agent is killed after each of these numbers of writes and started again. Production gets mail by itself
   * before those of its writes that are in `busy`.
   */
  async push(
    final: boolean,
    kills: readonly number[],
    busy: readonly number[] = [],
  ): Promise<void> {
    this.#handed += 1
    let write = 0
    this.production.meanwhile = () => {
      write += 1
      if (busy.includes(write)) this.deliverThere()
    }
    for (const kill of [...kills, Number.POSITIVE_INFINITY]) {
      const fuse = new Fuse(kill)
      this.production.fuse = fuse
      this.appliance.fuse = fuse
      this.baseline.fuse = fuse
      try {
        await this.once(final)
        break
      } catch (error: unknown) {
        if (!(error instanceof Killed)) throw error
      }
    }
    this.production.meanwhile = undefined
    for (const part of [this.production, this.appliance, this.baseline]) part.fuse = new Fuse()
    this.baseline.heardOf = {
      uidNext: this.production.uidNext,
      highestModSeq: this.production.modSeq,
    }
  }

  async once(final: boolean): Promise<FolderPush> {
    const push = new FolderPush({ path: 'INBOX', final, ...this.#parts() })
    await push.deliver()
    await push.finish()
    return push
  }

  #parts() {
    const { appliance, production, baseline } = this
    return { appliance, production, baseline }
  }

  #isOrphan(mail: Letter): boolean {
    return this.orphans.has(nameOf(mail.body))
  }

  /** What must hold when everything was handed over. */
  check(): void {
    const { production, appliance } = this
    const names = [...production.messages.values()].map(({ letter: { body } }) => nameOf(body))
    for (const [uid, { letter: mail, flags }] of appliance.messages) {
      const name = nameOf(mail.body)
      const there = production.messages.get(uid)
      if (there === undefined) {
        assert.ok(this.expungedThere.has(`${uid} ${name}`), `${name} at ${uid} is lost`)
        continue
      }
      assert.is(nameOf(there.letter.body), name, `UID ${uid} means two messages`)
      assert.is(there.letter.internalDate, mail.internalDate)
      if (flags.includes('\\Flagged')) assert.ok(there.flags.includes('\\Flagged'))
    }
    for (const name of this.orphans)
      assert.is(names.filter((other) => other === name).length, 1, `${name} must be there once`)
    for (const [uid, { letter: mail }] of production.messages) {
      const name = nameOf(mail.body)
      assert.ok(!mail.body.includes(PAD_HEADER), `padding is left at ${uid}`)
      const seen = appliance.history.get(uid)
      if (seen !== undefined)
        assert.equal(
          [...seen].map((body) => nameOf(Buffer.from(body))),
          [name],
        )
      if (appliance.messages.has(uid)) continue
      assert.ok(uid >= appliance.uidNext, `${name} at ${uid} lies where clients do not look`)
      const allowed = this.orphans.has(name) || this.doubled.has(name)
      assert.ok(allowed || (this.isSetBack && this.expungedHere.has(name)), `${name} came back`)
    }
    assert.ok(production.uidNext >= appliance.uidNext)
    assert.ok(production.modSeq >= appliance.modSeq)
  }
}

const pickOf = (folder: FakeFolder, n: number): number =>
  [...folder.messages.keys()][n % Math.max(1, folder.messages.size)] ?? 0

const FLAGS = ['\\Seen', '\\Flagged', '$Later']
const act = fc.oneof(
  { weight: 4, arbitrary: fc.record({ do: fc.constant('deliver-here' as const) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('deliver-there' as const) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('deliver-both' as const) }) },
  {
    weight: 5,
    arbitrary: fc.record({
      do: fc.constantFrom('copy-here', 'remove-here', 'remove-there', 'skip-there', 'set-back'),
      n: fc.nat(20),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constantFrom('flag-here', 'flag-there'),
      n: fc.nat(20),
      flag: fc.constantFrom(...FLAGS),
      on: fc.boolean(),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('push' as const),
      kills: fc.array(fc.integer({ min: 1, max: 12 }), { maxLength: 3 }),
      busy: fc.array(fc.integer({ min: 1, max: 12 }), { maxLength: 2 }),
    }),
  },
)
type Act = typeof act extends fc.Arbitrary<infer T> ? T : never

async function perform(world: World, step: Act): Promise<void> {
  switch (step.do) {
    case 'deliver-here':
      return world.deliverHere()
    case 'deliver-there':
      return world.deliverThere()
    case 'deliver-both':
      return world.deliverBoth()
    case 'copy-here':
      return world.copyHere(step.n)
    case 'remove-here':
      return world.removeHere(step.n)
    case 'remove-there':
      return world.removeThere(step.n)
    case 'skip-there':
      world.production.uidNext += step.n
      return
    case 'set-back':
      return world.setBack(1 + (step.n % 4))
    case 'flag-here':
      return world.appliance.setFlag(pickOf(world.appliance, step.n), step.flag, step.on)
    case 'flag-there':
      return world.production.setFlag(pickOf(world.production, step.n), step.flag, true)
    case 'push':
      return await world.push(false, step.kills, step.busy)
  }
}

test('random histories end with both servers agreeing, wherever the agent was killed', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.subarray(FLAGS), { maxLength: 8 }),
      fc.nat(3),
      fc.nat(8),
      fc.array(act, { maxLength: 25 }),
      fc.array(fc.integer({ min: 1, max: 15 }), { maxLength: 4 }),
      fc.array(fc.integer({ min: 1, max: 15 }), { maxLength: 3 }),
      async (initial, unseen, gap, acts, kills, busy) => {
        const world = new World(initial, unseen, gap)
        for (const step of acts) await perform(world, step)
        await world.push(true, kills, busy)
        world.check()
        const writes = [world.production.writes, world.appliance.writes]
        await world.push(true, [])
        assert.equal([world.production.writes, world.appliance.writes], writes)
      },
    ),
    { numRuns: Number(process.env['RUNS'] ?? 1_000), includeErrorInReport: true },
  )
})

test('a message that production refuses holds up those behind it, and nothing else', async () => {
  const world = new World([[], []], 0, 4)
  for (let n = 0; n < 3; n += 1) world.deliverHere()
  world.removeHere(0)
  const [, second = 0] = [...world.appliance.messages.keys()].slice(-3)
  const refused = world.appliance.messages.get(second)?.letter
  world.production.refuses = (mail) => mail.body === refused?.body
  const push = await world.once(true)
  assert.is(push.refusal?.uid, second)
  assert.is(push.counts.appended, 1)
  assert.is(push.counts.expunged, 1)
  assert.not(world.baseline.known.has(second))
  world.production.refuses = () => false
  await world.push(true, [])
  assert.ok(world.production.messages.has(second), 'its UID was kept free')
  world.check()
})

test('a folder whose UIDs mean other mail throughout is a stranger, and is not touched', async () => {
  const world = new World(Array(30).fill([]), 0, 4)
  for (const [uid, { flags }] of world.production.messages)
    world.production.messages.set(uid, { letter: letter(`other ${uid}`), flags })
  world.deliverHere()
  const outcome = await world.once(false).catch((error: unknown) => error)
  assert.instance(outcome, Stranger)
  assert.is(world.production.writes, 0)
})

test.run()
