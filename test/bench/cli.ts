// Measures, against peers in the same run where there are any: see README.md in this folder.
import { writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { parseArgs } from 'node:util'
import { isMisuse, Misused, wholeNumber } from '../lab/misuse.ts'
import type { Bench, BenchOptions } from './bench.ts'
import { failover } from './failover.ts'
import { machine } from './machine.ts'
import { memory } from './memory.ts'
import { replication } from './replication.ts'
import { measured, type Row, type Sample, unmeasured } from './rows.ts'
import { tableOf } from './table.ts'
import { wire } from './wire.ts'

const BENCHES: readonly Bench[] = [wire, failover, replication, memory]
const NAMES = [...BENCHES.map(({ name }) => name), 'all']
const USAGE = `npm run bench -- ${NAMES.join('|')} [--json FILE] [--runs N] [--messages N]
                  [--policy aggressive|default]\n`

/** An abstract socket: the kernel lets it go with the process, however that ends. */
const LOCK = '\0understudy-bench'

const interrupted = new AbortController()
for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.once(signal, () => interrupted.abort(new Error(`interrupted by ${signal}`)))

async function rowsOf(bench: Bench, options: BenchOptions): Promise<Row[]> {
  const samples = new Map<string, Sample>()
  const limitMs = bench.limitMs(options)
  const signal = AbortSignal.any([interrupted.signal, AbortSignal.timeout(limitMs)])
  let because = 'this run does not measure it'
  try {
    await bench.measure({
      options,
      signal,
      say: (text) => process.stderr.write(`${bench.name}: ${text}\n`),
      record: (metric, sample) => samples.set(metric, sample),
    })
  } catch (error: unknown) {
    const late = `not within ${Math.round(limitMs / 1_000)} s`
    const stopped = interrupted.signal.aborted ? messageOf(interrupted.signal.reason) : late
    const problem = signal.aborted ? stopped : messageOf(error)
    process.stderr.write(`${bench.name}: ${problem}\n`)
    because = problem.split('\n', 1)[0] ?? problem
    process.exitCode = 1
  }
  return bench.metrics.map((metric) => {
    const sample = samples.get(metric.metric)
    return sample === undefined ? unmeasured(metric, because) : measured(metric, sample)
  })
}

const messageOf = (error: unknown): string =>
  error instanceof Error ? error.message : String(error)

/** Benches disturb each other: a second one is refused. @throws {Misused} */
function lock(): Promise<() => void> {
  const server = createServer()
  return new Promise((resolve, reject) => {
    server.once('error', () => reject(new Misused('another bench is running on this machine')))
    server.listen(LOCK, () => resolve(() => server.close()))
  })
}

async function main(args: readonly string[]): Promise<void> {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      json: { type: 'string' },
      runs: { type: 'string' },
      messages: { type: 'string' },
      policy: { type: 'string' },
    },
  })
  const [name = ''] = positionals
  const chosen = BENCHES.filter((bench) => name === 'all' || bench.name === name)
  if (chosen.length === 0) throw new Misused(`which bench? ${NAMES.join(', ')}\n${USAGE}`)
  if (process.getuid?.() !== 0) throw new Misused('only root can make network namespaces')
  const number = (option: 'runs' | 'messages') =>
    values[option] === undefined ? undefined : wholeNumber(option, values[option], 1)
  const options = { runs: number('runs'), messages: number('messages'), policy: values.policy }
  const unlock = await lock()
  const from = machine()
  const rows: Row[] = []
  try {
    for (const bench of chosen)
      if (!interrupted.signal.aborted) rows.push(...(await rowsOf(bench, options)))
  } finally {
    unlock()
  }
  process.stdout.write(tableOf(rows))
  const result = { name, machine: from, rows }
  if (values.json !== undefined)
    await writeFile(values.json, `${JSON.stringify(result, null, 2)}\n`)
}

try {
  await main(process.argv.slice(2))
} catch (error: unknown) {
  if (!isMisuse(error)) throw error
  process.stderr.write(`bench: ${error.message}\n`)
  process.exitCode = 2
}
