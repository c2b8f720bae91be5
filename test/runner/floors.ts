import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Command, CommandFailed, run } from '../../firmware/command.ts'

/** A floor of tests: where its files are, how many run at a time, and how long one may take. */
export type Floor = {
  readonly name: string
  readonly tasks: () => readonly Task[]
  readonly atATime: number
  readonly timeoutMs: number
  /** Why this machine cannot run it; `undefined` when it can. */
  readonly missing: () => Promise<string | undefined>
  /** Whether the program prints uvu's summary; if not, its exit code is one test. */
  readonly counts: boolean
}

/** One test file, or one check of the whole tree. */
export type Task = { readonly name: string; readonly command: Command }

const canRun = () => Promise.resolve(undefined)

const filesOf = (folder: string) => (): readonly Task[] =>
  readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.test.ts'))
    .sort()
    .map((file) => join(folder, file))
    .map((file) => ({ name: file, command: { program: 'node', args: [file] } }))

/** The parts of `npm run check`, which is the one place where they are listed. */
function checks(): readonly Task[] {
  const { scripts } = JSON.parse(readFileSync('package.json', 'utf8')) as {
    scripts: Readonly<Record<string, string>>
  }
  return (scripts['check'] ?? '').split(' && ').map((line) => {
    const [program = '', ...args] = line.split(' ')
    return { name: `check: ${line}`, command: { program, args } }
  })
}

const NETDEV_PROBE = `table netdev probe {
  chain ingress {
    type filter hook ingress device "lo" priority 0
    meta mark 1 fwd to "lo"
    meta mark 2 dup to "lo"
  }
}`

/** The laboratory makes network namespaces and nftables rules: tried in a namespace that is gone at once. */
async function labMissing(): Promise<string | undefined> {
  const probe = { program: 'unshare', args: ['--net', 'nft', '-f', '-'], input: NETDEV_PROBE }
  try {
    await run(probe, { timeoutMs: 10_000 })
    return undefined
  } catch (error: unknown) {
    if (!(error instanceof CommandFailed)) throw error
    return `it needs root with CAP_NET_ADMIN, and nft with netdev tables (${error.message})`
  }
}

/** All floors, from the quickest to the slowest. */
export const floors: readonly Floor[] = [
  {
    name: 'check',
    tasks: checks,
    atATime: 2,
    timeoutMs: 180_000,
    missing: canRun,
    counts: false,
  },
  {
    name: 'unit',
    tasks: filesOf('test/unit'),
    atATime: 2,
    timeoutMs: 60_000,
    missing: canRun,
    counts: true,
  },
  {
    name: 'simulation',
    tasks: filesOf('test/simulation'),
    atATime: 2,
    timeoutMs: 180_000,
    missing: canRun,
    counts: true,
  },
  {
    name: 'lab',
    tasks: filesOf('test/lab'),
    atATime: 1,
    timeoutMs: 240_000,
    missing: labMissing,
    counts: true,
  },
]
