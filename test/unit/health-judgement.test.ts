// Goal: evidence becomes a verdict exactly when the policy says so, never for the wrong reason, and patience is monotone.
// Method: hand-written traces for each rule, and random traces judged under all three policies at once.
import * as fc from 'fast-check'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { Evidence } from '../../agent/health/evidence.ts'
import {
  dueMs,
  hasReturned,
  type Judgement,
  judge,
  unprejudiced,
  type Verdict,
} from '../../agent/health/judgement.ts'
import { POLICIES, type PolicyName, type Terms } from '../../agent/health/policy.ts'

const test = suite('judgement')
const imap = 'imap:143'
const smtp = 'smtp:25'
const termsOf = (policy: PolicyName): Terms => ({
  ...POLICIES[policy],
  holdMs: 60_000,
  essential: [imap],
})
const terms = termsOf('default')

const answered = (atMs: number, sound = true): Evidence => ({
  kind: 'answered',
  service: imap,
  askedMs: atMs - 1,
  atMs,
  sound,
})
const refused = (atMs: number, by: 'probe' | 'users' = 'probe'): Evidence => ({
  kind: 'refused',
  service: imap,
  by,
  atMs,
})
const silent = (sinceMs: number, by: 'probe' | 'session' | 'users' = 'probe'): Evidence => ({
  kind: 'silent',
  service: imap,
  by,
  sinceMs,
  atMs: sinceMs + 200,
})
const alive = (atMs: number, by: 'session' | 'users'): Evidence => ({
  kind: 'alive',
  service: imap,
  by,
  atMs,
})
const carrier = (up: boolean, atMs: number): Evidence => ({ kind: 'carrier', up, atMs })
const time = (atMs: number): Evidence => ({ kind: 'time', atMs })

/** What is thought after some evidence; where time alone changes it on the way, it does. */
function after(evidence: readonly Evidence[], under = terms, start = fresh()): Judgement {
  return evidence.reduce((judgement, next) => {
    const due = dueMs(judgement, under)
    const ripe = due < next.atMs ? judge(judgement, time(due), under) : judgement
    return judge(ripe, next, under)
  }, start)
}

const fresh = (): Judgement => unprejudiced([imap, smtp])
const verdict = (judgement: Judgement, service: typeof imap | typeof smtp = imap): Verdict =>
  judgement.services[service]?.verdict ?? 'unknown'
const refusals = (fromMs: number, toMs: number): Evidence[] =>
  Array.from({ length: (toMs - fromMs) / 250 + 1 }, (_, n) => refused(fromMs + n * 250))

test('a service that has never answered is unknown, whatever is held against it', () => {
  const judgement = after([carrier(false, 0), ...refusals(0, 10_000), silent(0), time(60_000)])
  assert.is(verdict(judgement), 'unknown')
})

test('a service that answered before a restart is judged at once, the others are not', () => {
  const start = unprejudiced([imap, smtp], [imap])
  const judgement = after([...refusals(0, 2_250)], terms, start)
  assert.is(verdict(judgement), 'failed')
  assert.is(verdict(judgement, smtp), 'unknown')
})

test('the first answer makes it healthy, the first refusal suspected, lasting refusals failed', () => {
  const suspected = after([answered(0), ...refusals(1_000, 2_250)])
  assert.is(verdict(suspected), 'suspected')
  assert.is(dueMs(suspected, terms), 2_500)
  assert.is(verdict(judge(suspected, time(2_499), terms)), 'suspected')
  assert.is(verdict(judge(suspected, time(2_500), terms)), 'failed')
})

test('a restart of one second is suspected, then healthy', () => {
  const restarting = after([answered(0), ...refusals(1_000, 1_750)])
  assert.is(verdict(restarting), 'suspected')
  assert.is(verdict(after([answered(2_001)], terms, restarting)), 'healthy')
})

test('refusals that are not repeated are judged as silence', () => {
  const judgement = after([answered(0), refused(1_000), refused(1_250), silent(1_500)])
  assert.is(dueMs(judgement, terms), 3_000)
})

test('silence counts from the question, not from when we noticed', () => {
  const judgement = after([answered(0), silent(1_000, 'users'), silent(1_250)])
  assert.is(dueMs(judgement, terms), 3_000)
})

test('what users meet with is never enough: a fresh probe of our own must confirm it', () => {
  const judgement = after([answered(0), silent(1_000, 'users'), refused(1_100, 'users')])
  assert.is(verdict(judge(judgement, time(60_000), terms)), 'suspected')
})

test('any sign of life ends the silence, but only a fresh answer ends the suspicion', () => {
  for (const by of ['session', 'users'] as const) {
    const judgement = after([answered(0), silent(1_000), alive(2_900, by), time(5_000)])
    assert.is(verdict(judgement), 'suspected', by)
    assert.is(verdict(after([answered(5_100)], terms, judgement)), 'healthy', by)
  }
})

test('a sign of life from before the question proves nothing', () => {
  const judgement = after([answered(0), silent(1_000), alive(900, 'users')])
  assert.is(dueMs(judgement, terms), 3_000)
})

test('a question older than the last sign of life was only slow', () => {
  assert.is(verdict(after([answered(0), alive(1_500, 'session'), silent(1_400)])), 'healthy')
})

test('an open port that says nothing is silent, from the first refusal on', () => {
  const judgement = after([
    answered(0),
    ...refusals(1_000, 2_000),
    { kind: 'accepted', service: imap, atMs: 2_250 },
  ])
  assert.is(verdict(judge(judgement, time(2_999), terms)), 'suspected')
  assert.is(dueMs(judgement, terms), 3_000)
})

test('a service that serves old sessions but nobody new is failed in the end', () => {
  const evidence = [answered(0), silent(1_000)]
  for (let atMs = 1_500; atMs < 10_500; atMs += 500)
    evidence.push(alive(atMs, 'session'), silent(atMs + 10))
  const judgement = after(evidence)
  assert.is(verdict(judgement), 'suspected')
  assert.is(verdict(judge(judgement, time(11_000), terms)), 'failed')
})

test('refusals that only we meet, while users go on, are not enough', () => {
  const evidence: Evidence[] = [answered(0)]
  for (let atMs = 1_000; atMs < 9_000; atMs += 250)
    evidence.push(refused(atMs), alive(atMs + 10, 'users'))
  assert.is(verdict(after(evidence)), 'suspected')
})

test('refusals count although users go on, when our own old session goes on too', () => {
  const evidence: Evidence[] = [answered(0)]
  for (let atMs = 1_000; atMs <= 2_500; atMs += 250)
    evidence.push(refused(atMs), alive(atMs + 5, 'session'), alive(atMs + 10, 'users'))
  assert.is(verdict(after(evidence)), 'failed')
})

test('a lost link concerns all services, and its return proves nothing yet', () => {
  const both = [answered(0), { ...answered(0), service: smtp } as Evidence]
  const down = after([...both, carrier(false, 1_000)])
  assert.equal([verdict(down, imap), verdict(down, smtp)], ['suspected', 'suspected'])
  assert.is(dueMs(down, terms), 1_500)
  const flapped = after([carrier(true, 1_300)], terms, down)
  assert.is(verdict(flapped), 'suspected')
  assert.is(verdict(after([answered(1_320)], terms, flapped)), 'healthy')
  assert.is(verdict(judge(down, time(1_500), terms), smtp), 'failed')
})

test('an answer that was under way when the link was lost changes nothing', () => {
  const judgement = after([
    answered(0),
    carrier(false, 1_000),
    { ...answered(1_001), askedMs: 999 } as Evidence,
  ])
  assert.is(verdict(judgement), 'suspected')
})

test('at the aggressive end a lost link needs no patience', () => {
  assert.is(verdict(after([answered(0), carrier(false, 1_000)], termsOf('aggressive'))), 'failed')
})

test('an appliance that cannot ask suspects nobody, and forgives nobody who failed', () => {
  const unable: Evidence = { kind: 'unable', service: imap, atMs: 2_000 }
  assert.is(verdict(after([answered(0), silent(1_000, 'session'), unable])), 'healthy')
  const failed = after([answered(0), ...refusals(1_000, 2_500), { ...unable, atMs: 3_000 }])
  assert.is(verdict(failed), 'failed')
})

test('an unsound answer acquits, but begins no way back', () => {
  assert.is(verdict(after([answered(0), refused(1_000), answered(1_100, false)])), 'healthy')
  const standing = after([answered(0), { kind: 'standing-in', on: true, atMs: 1_000 }])
  const unsound = Array.from({ length: 100 }, (_, n) => answered(2_000 + n * 1_000, false))
  assert.not(hasReturned(after(unsound, terms, standing), terms, 102_000))
})

test('a failed service is healthy at its first answer, but not while we stand in', () => {
  const failed = after([answered(0), ...refusals(1_000, 2_500)])
  assert.is(verdict(after([answered(5_000)], terms, failed)), 'healthy')
  const standing = after([{ kind: 'standing-in', on: true, atMs: 2_600 }], terms, failed)
  const answering = after(
    Array.from({ length: 60 }, (_, n) => answered(5_000 + n * 1_000)),
    terms,
    standing,
  )
  assert.is(verdict(answering), 'failed')
  const held = after([answered(65_000)], terms, answering)
  assert.is(verdict(held), 'healthy')
  assert.ok(hasReturned(held, terms, 65_000))
})

test('a break starts the hold time anew; one lost packet does not', () => {
  const standing: Evidence[] = [answered(0), { kind: 'standing-in', on: true, atMs: 1_000 }]
  const row = (fromMs: number, toMs: number) =>
    Array.from({ length: (toMs - fromMs) / 1_000 + 1 }, (_, n) => answered(fromMs + n * 1_000))
  const lost = after([...standing, ...row(2_000, 30_000), silent(30_500), ...row(31_000, 62_000)])
  assert.ok(hasReturned(lost, terms, 62_000))
  const broken = after([
    ...standing,
    ...row(2_000, 30_000),
    refused(30_500),
    ...row(31_000, 62_000),
  ])
  assert.not(hasReturned(broken, terms, 62_000))
})

test('answers that have stopped coming are no return', () => {
  const judgement = after([
    { kind: 'standing-in', on: true, atMs: 0 },
    ...Array.from({ length: 61 }, (_, n) => answered(1_000 + n * 1_000)),
  ])
  assert.ok(hasReturned(judgement, terms, 61_500))
  assert.not(hasReturned(judgement, terms, 70_000))
})

const piece = (atMs: number): fc.Arbitrary<Evidence> => {
  const service = fc.constantFrom(imap, smtp)
  const by = fc.constantFrom('probe', 'session', 'users') as fc.Arbitrary<'probe'>
  const agoMs = fc.nat(3_000)
  return fc.oneof(
    { weight: 2, arbitrary: fc.boolean().map((up) => carrier(up, atMs)) },
    {
      weight: 3,
      arbitrary: fc.record({ service, ago: agoMs, sound: fc.boolean() }).map(
        ({ service, ago, sound }): Evidence => ({
          kind: 'answered',
          service,
          askedMs: atMs - ago,
          atMs,
          sound,
        }),
      ),
    },
    {
      weight: 8,
      arbitrary: fc.record({ service, by }).map((r): Evidence => ({ kind: 'refused', ...r, atMs })),
    },
    {
      weight: 8,
      arbitrary: fc
        .record({ service, by, ago: agoMs })
        .map(({ ago, ...r }): Evidence => ({ kind: 'silent', ...r, sinceMs: atMs - ago, atMs })),
    },
    {
      weight: 4,
      arbitrary: fc
        .record({ service, by: fc.constantFrom('session', 'users') as fc.Arbitrary<'users'> })
        .map((r): Evidence => ({ kind: 'alive', ...r, atMs })),
    },
    {
      weight: 3,
      arbitrary: fc
        .record({
          service,
          kind: fc.constantFrom('lost', 'unable', 'accepted') as fc.Arbitrary<'lost'>,
        })
        .map((r): Evidence => ({ ...r, atMs })),
    },
  )
}

const trace = fc
  .array(fc.oneof(fc.integer({ min: 1, max: 600 }), fc.integer({ min: 600, max: 40_000 })), {
    minLength: 1,
    maxLength: 60,
  })
  .chain((gaps) => {
    let atMs = 0
    return fc.tuple(
      ...gaps.map((gap) => {
        atMs += gap
        return piece(atMs)
      }),
    )
  })

test('moving towards lax never makes a failure come earlier, on any trace', async () => {
  const [strict, middle, lax] = (['aggressive', 'default', 'lax'] as const).map(termsOf)
  assert.ok(strict && middle && lax)
  let failures = 0
  await fc.assert(
    fc.property(trace, (evidence) => {
      let judgements = [strict, middle, lax].map((under) => ({
        under,
        judgement: after([answered(0), { ...answered(0), service: smtp } as Evidence], under),
      }))
      for (const next of evidence) {
        judgements = judgements.map(({ under, judgement }) => ({
          under,
          judgement: after([next], under, judgement),
        }))
        for (const service of [imap, smtp] as const) {
          const failed = judgements.map(({ judgement }) => verdict(judgement, service) === 'failed')
          if (failed[0]) failures += 1
          assert.not(failed[1] && !failed[0], 'default before aggressive')
          assert.not(failed[2] && !failed[1], 'lax before default')
        }
      }
    }),
    { numRuns: 3_000, seed: Number(process.env['SEED'] ?? 1) },
  )
  assert.ok(failures > 1_000, 'the traces must contain failures')
})

test.run()
