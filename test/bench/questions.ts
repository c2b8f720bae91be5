/** One question that a client asked over a connection of its own. Times are on the machine's monotonic clock. */
export type Question = {
  /** `open`: asked at a fixed pace whatever becomes of the others; `closed`: after the one before has ended. */
  readonly loop: 'open' | 'closed'
  readonly startedMs: number
  readonly endedMs: number
  /** `not-connected`: nobody took the connection; `lost`: it ended, or nothing came, before the greeting. */
  readonly outcome: 'answered' | 'not-connected' | 'lost'
  readonly because?: string
}

/** One client's way to its mail: each step's duration. */
export type Login = {
  readonly loop: 'login'
  readonly user: string
  readonly startedMs: number
  readonly endedMs: number
  readonly outcome: 'answered' | 'failed'
  readonly greetingMs?: number
  readonly loginMs?: number
  readonly selectMs?: number
  readonly because?: string
}

export type AskerRecord = Question | Login

/** What the asking process is given. */
export type AskerPlan = {
  readonly host: string
  readonly everyMs: number
  /** After which a connection without an answer is given up. */
  readonly patienceMs: number
  /** Who logs in, in turn, one every `everyMs`; absent: nobody does. */
  readonly logins?: {
    readonly everyMs: number
    readonly accounts: readonly { readonly user: string; readonly password: string }[]
    readonly ca: string
  }
}

/** The longest time between two good answers, as a client met it. */
export type Outage = { readonly ms: number; readonly lastMs: number; readonly firstMs: number }

/** The longest silence among the answers of one loop from `fromMs` on; `undefined` without two answers. */
export function outageOf(
  questions: readonly Question[],
  loop: Question['loop'],
  fromMs: number,
): Outage | undefined {
  const answers = questions
    .filter((question) => question.loop === loop && question.outcome === 'answered')
    .map(({ endedMs }) => endedMs)
    .sort((a, b) => a - b)
  let longest: Outage | undefined
  for (const [index, lastMs] of answers.entries()) {
    const firstMs = answers[index + 1]
    if (firstMs === undefined || firstMs < fromMs) continue
    if (firstMs - lastMs > (longest?.ms ?? 0)) longest = { ms: firstMs - lastMs, lastMs, firstMs }
  }
  return longest
}

/** How many connections came to this end. */
export const count = (questions: readonly Question[], outcome: Question['outcome']): number =>
  questions.filter((question) => question.outcome === outcome).length
