import { parseArgs } from 'node:util'
import { AgentUnreachable } from './ask.ts'
import type { Answer } from './protocol.ts'
import type { Report } from './settings-check.ts'
import type { Status } from './status.ts'
import { statusLines } from './status-lines.ts'
import { type Verb, verbNamed, verbs } from './verbs.ts'

/** What the command line needs of the world around it. */
export type Surroundings = {
  readonly settingsPath: string
  /** @throws {AgentUnreachable} */
  ask(verb: string, args: Readonly<Record<string, unknown>>): Promise<Answer>
  /** What is wrong with a settings file. */
  check(settingsPath: string): Promise<Report>
}

/** What a command prints and how it ends: 0 done, 1 refused or impossible, 2 not understood. */
export type Outcome = {
  readonly exitCode: 0 | 1 | 2
  readonly out: readonly string[]
  readonly errors: readonly string[]
}

/** Carries out one command of `understudy`. */
export async function execute(
  argv: readonly string[],
  surroundings: Surroundings,
): Promise<Outcome> {
  const [name, ...rest] = argv
  if (name === undefined || name === '--help' || name === 'help') return done(HELP)
  if (name === 'check-settings') return await checkSettings(rest, surroundings)
  const verb = verbNamed(name)
  if (verb === undefined) return misunderstood(`no such command: ${name}`, HELP)
  const given = optionsOf(verb, rest)
  if (given instanceof Error)
    return misunderstood(given.message, [lineOf(usageOf(verb), verb.help)])
  const { json, ...args } = given
  try {
    return outcomeOf(verb, await surroundings.ask(verb.name, args), json === true)
  } catch (error: unknown) {
    if (!(error instanceof AgentUnreachable)) throw error
    return failed([
      `understudy: no agent answers (${error.message}); start it, or give its state directory in UNDERSTUDY_STATE`,
    ])
  }
}

const done = (out: readonly string[]): Outcome => ({ exitCode: 0, out, errors: [] })
const failed = (errors: readonly string[]): Outcome => ({ exitCode: 1, out: [], errors })
const misunderstood = (what: string, help: readonly string[]): Outcome => ({
  exitCode: 2,
  out: [],
  errors: [`understudy: ${what}`, ...help],
})

async function checkSettings(
  rest: readonly string[],
  { settingsPath, check }: Surroundings,
): Promise<Outcome> {
  const [path = settingsPath, ...more] = rest
  if (more.length > 0 || path.startsWith('-'))
    return misunderstood(`check-settings takes one file: ${rest.join(' ')}`, HELP)
  const { usable, lines } = await check(path)
  return usable ? done([...lines, `${path}: these settings can be used.`]) : failed(lines)
}

function outcomeOf(verb: Verb, answer: Answer, json: boolean): Outcome {
  if (!answer.accepted) return failed([`understudy: ${verb.name} refused: ${answer.because}`])
  if (answer.status === undefined) return done([`${verb.name}: accepted.`])
  return done(linesOf(answer.status, json))
}

const linesOf = (status: Status, json: boolean): readonly string[] =>
  json ? [JSON.stringify(status, undefined, 2)] : statusLines(status)

/** Options of a verb as given by `--name` and `--name TEXT`. */
function optionsOf(
  verb: Verb,
  args: readonly string[],
): Readonly<Record<string, string | boolean | undefined>> | Error {
  const options = Object.fromEntries(
    Object.entries(takesOf(verb)).map(([name, kind]) => [
      name,
      { type: kind === 'flag' ? ('boolean' as const) : ('string' as const) },
    ]),
  )
  try {
    return { ...parseArgs({ args: [...args], options, allowPositionals: false }).values }
  } catch (error: unknown) {
    if (error instanceof TypeError) return error
    throw error
  }
}

/** `--json` belongs to this face, not to the verb. */
const takesOf = ({ name, takes }: Verb): Verb['takes'] =>
  name === 'status' ? { ...takes, json: 'flag' } : takes

const usageOf = (verb: Verb): string =>
  [
    verb.name,
    ...Object.entries(takesOf(verb)).map(([name, kind]) =>
      kind === 'flag' ? `[--${name}]` : `[--${name} TEXT]`,
    ),
  ].join(' ')

const lineOf = (usage: string, help: string): string => `  ${usage.padEnd(38)} ${help}`

const HELP: readonly string[] = [
  'understudy COMMAND',
  '',
  ...verbs.map((verb) => lineOf(usageOf(verb), verb.help)),
  lineOf('check-settings [FILE]', 'say what is wrong with a settings file, and what to do'),
  lineOf('--help', 'this list'),
  '',
  'UNDERSTUDY_SETTINGS  the settings file (/data/understudy/settings.json)',
  'UNDERSTUDY_STATE     the state directory of the agent (/data/understudy)',
]
