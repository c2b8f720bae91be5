import { spawn } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { parseArgs } from 'node:util'
import { CommandFailed, inNamespace } from '../../firmware/command.ts'
import { accountsFrom } from './bed/accounts.ts'
import { AgentSilent } from './bed/appliance.ts'
import { Bed, type BedOptions, NoAppliance } from './bed/bed.ts'
import { FAULTS, isFault } from './bed/faults.ts'
import { type NamespaceRole, prefixFrom, ROLES } from './bed/plan.ts'
import { NoSuchBed } from './bed/record.ts'
import { compare, readDigest } from './digest.ts'
import { isMisuse, Misused, wholeNumber } from './misuse.ts'

const POLICIES = ['aggressive', 'default', 'lax'] as const
const ORDERS = ['take-over', 'give-back'] as const

const USAGE = `npm run lab -- up [--json] [--users N] [--messages M] [--accounts FILE] [--policy ${POLICIES.join('|')}]
                  [--hold-ms MS] [--give-back automatic|by-order] [--noc] [--no-appliance]
npm run lab -- in ${ROLES.join('|')} -- CMD…
npm run lab -- fault ${Object.keys(FAULTS).join('|')}
npm run lab -- heal
npm run lab -- order ${ORDERS.join('|')}
npm run lab -- status --json
npm run lab -- digest --json
npm run lab -- down
With several beds, say which: --prefix PREFIX
`

const say = (text: string): void => {
  process.stdout.write(`${text}\n`)
}
const sayJson = (data: unknown): void => say(JSON.stringify(data, null, 2))

type Options = ReturnType<typeof readOptions>['values']
type Verb = (words: readonly string[], options: Options) => Promise<number>

const verbs: Readonly<Record<string, Verb>> = {
  up: async (_, options) => {
    const bed = await up(options)
    if (options.json === true) sayJson(await bed.description())
    else say(`bed ${bed.prefix} is up; it stays until: npm run lab -- down --prefix ${bed.prefix}`)
    return 0
  },
  in: async ([word, ...command], { prefix }) => {
    const role = oneOf(ROLES, word, 'namespace')
    const bed = await Bed.find(prefix)
    return enter(bed, role, command)
  },
  fault: async ([word = ''], { prefix }) => {
    if (!isFault(word)) throw new Misused(unknown('fault', word, Object.keys(FAULTS)))
    const bed = await Bed.find(prefix)
    await bed.fault(word)
    say(`production: ${FAULTS[word]}`)
    return 0
  },
  heal: async (_, { prefix }) => {
    await (await Bed.find(prefix)).heal()
    say('production: healed')
    return 0
  },
  order: async ([word], { prefix }) => {
    const bed = await Bed.find(prefix)
    process.stdout.write(await bed.order(oneOf(ORDERS, word, 'order')))
    return 0
  },
  status: async (_, { prefix, json }) => {
    const bed = await Bed.find(prefix)
    process.stdout.write(await bed.ask('status', ...(json === true ? ['--json'] : [])))
    return 0
  },
  digest: async (_, { prefix }) => {
    const bed = await Bed.find(prefix)
    if (bed.record.appliance.kind !== 'agent') throw new NoAppliance('there is no replica here')
    const sides = [readDigest(bed, 'production'), readDigest(bed, 'replica')] as const
    const comparison = compare(...(await Promise.all(sides)))
    sayJson(comparison)
    return comparison.identical ? 0 : 1
  },
  down: async (_, { prefix }) => {
    const bed = await Bed.find(prefix)
    await bed.down()
    say(`bed ${bed.prefix} is gone`)
    return 0
  },
}

function readOptions(args: readonly string[]) {
  return parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      prefix: { type: 'string' },
      json: { type: 'boolean' },
      users: { type: 'string' },
      messages: { type: 'string' },
      accounts: { type: 'string' },
      policy: { type: 'string' },
      'hold-ms': { type: 'string' },
      'give-back': { type: 'string' },
      noc: { type: 'boolean' },
      'no-appliance': { type: 'boolean' },
    },
  })
}

/** Builds a bed. An interrupt while it is built takes it down again. */
async function up(options: Options): Promise<Bed> {
  const interrupted = new AbortController()
  const interrupt = () => interrupted.abort(new Misused('interrupted'))
  process.once('SIGINT', interrupt).once('SIGTERM', interrupt)
  try {
    return await Bed.up(await bedOptions(options), interrupted.signal)
  } catch (error: unknown) {
    throw interrupted.signal.aborted ? interrupted.signal.reason : error
  } finally {
    process.off('SIGINT', interrupt).off('SIGTERM', interrupt)
  }
}

async function bedOptions(options: Options): Promise<BedOptions> {
  const { policy, accounts, messages, 'hold-ms': hold, 'give-back': giveBack } = options
  return {
    appliance: options['no-appliance'] === true ? 'plain-bridge' : 'agent',
    noc: options.noc === true,
    ...(options.prefix === undefined ? {} : { prefix: prefixFrom(options.prefix) }),
    ...(accounts === undefined ? {} : { accounts: await readAccounts(accounts) }),
    ...(options.users === undefined ? {} : { users: wholeNumber('users', options.users, 1) }),
    ...(messages === undefined ? {} : { messages: wholeNumber('messages', messages, 0) }),
    ...(hold === undefined ? {} : { holdMs: wholeNumber('hold-ms', hold, 0) }),
    ...(policy === undefined ? {} : { policy: oneOf(POLICIES, policy, 'policy') }),
    ...(giveBack === undefined
      ? {}
      : { giveBack: oneOf(['automatic', 'by-order'] as const, giveBack, 'way to give back') }),
  }
}

async function readAccounts(path: string) {
  try {
    return accountsFrom(await readFile(path, 'utf8'))
  } catch (error: unknown) {
    throw new Misused(`${path}: ${error instanceof Error ? error.message : String(error)}`)
  }
}

function oneOf<T extends string>(words: readonly T[], word: string | undefined, what: string): T {
  const found = words.find((one) => one === word)
  if (found === undefined) throw new Misused(unknown(what, word ?? '', words))
  return found
}

const unknown = (what: string, word: string, words: readonly string[]): string =>
  word === '' ? `which ${what}? ${words.join(', ')}` : `no ${what} ${word}: ${words.join(', ')}`

/** Runs a program in a namespace on this terminal; its exit code is ours. */
function enter(bed: Bed, role: NamespaceRole, command: readonly string[]): Promise<number> {
  const [program, ...args] = command
  if (program === undefined) throw new Misused(`in ${role} -- what?`)
  const entered = inNamespace(bed.namespace(role), { program, args })
  const child = spawn(entered.program, [...entered.args], { stdio: 'inherit' })
  return new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('exit', (code) => resolve(code ?? 1))
  })
}

async function main(args: readonly string[]): Promise<number> {
  const [verb = '', ...rest] = args
  const act = Object.hasOwn(verbs, verb) ? verbs[verb] : undefined
  if (verb === 'help' || verb === '--help') {
    say(USAGE)
    return 0
  }
  if (act === undefined) throw new Misused(unknown('verb', verb, Object.keys(verbs)))
  if (process.getuid?.() !== 0) throw new Misused('only root can make network namespaces')
  const { values, positionals } = readOptions(rest)
  return await act(positionals, values)
}

const isTheirs = (error: unknown): error is Error =>
  isMisuse(error) ||
  error instanceof RangeError ||
  error instanceof NoSuchBed ||
  error instanceof NoAppliance

// Whoever reads only the beginning (`| head`) has heard enough.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error
  process.exit()
})

try {
  process.exitCode = await main(process.argv.slice(2))
} catch (error: unknown) {
  const known = isTheirs(error) || error instanceof CommandFailed || error instanceof AgentSilent
  if (!known) throw error
  const said = error instanceof CommandFailed ? error.stderr.trim() : ''
  process.stderr.write(`lab: ${said === '' ? error.message : said}\n`)
  process.exitCode = isTheirs(error) ? 2 : 1
}
