import { parseArgs } from 'node:util'
import { type Floor, floors, type Task } from './runner/floors.ts'
import { closingLine, type Ending, sum, type Tally, verdictOn } from './runner/summary.ts'
import { runTask } from './runner/task.ts'

// npm run test [-- FLOOR…] [--filter TEXT]: runs test files, each in a process of its own, and counts.

const OUTPUT_LINES_MAX = 200

const print = (line: string) => process.stdout.write(`${line}\n`)

function chosen(args: string[]): { wanted: readonly Floor[]; filter: string } {
  const { positionals, values } = parseArgs({
    args,
    options: { filter: { type: 'string', default: '' } },
    allowPositionals: true,
  })
  const known = floors.map(({ name }) => name)
  const unknown = positionals.filter((name) => !known.includes(name))
  if (unknown.length > 0)
    throw new TypeError(`no such floor: ${unknown.join(' ')}; there are ${known.join(', ')}`)
  const wanted = floors.filter(({ name }) => positionals.length === 0 || positionals.includes(name))
  return { wanted, filter: values.filter }
}

async function runFloor(floor: Floor, filter: string, signal: AbortSignal): Promise<Tally> {
  const tasks = floor.tasks().filter(({ name }) => name.includes(filter))
  if (tasks.length === 0) return sum([])
  const missing = await floor.missing()
  if (missing !== undefined) {
    print(`\n!!! THE ${floor.name.toUpperCase()} FLOOR CANNOT RUN HERE: ${missing}`)
    for (const { name } of tasks) print(`skip  ${name}`)
    return { ...sum([]), skipped: tasks.length }
  }
  const waiting = [...tasks]
  const tallies: Tally[] = []
  const worker = async () => {
    for (let task = waiting.shift(); task !== undefined; task = waiting.shift())
      if (!signal.aborted) tallies.push(await runOne(floor, task, signal))
  }
  await Promise.all(Array.from({ length: floor.atATime }, worker))
  return sum(tallies)
}

async function runOne(floor: Floor, task: Task, signal: AbortSignal): Promise<Tally> {
  const start = performance.now()
  const ending = await runTask(task.command, floor.timeoutMs, signal)
  const verdict = floor.counts ? verdictOn(ending) : byExitCode(ending)
  const ms = Math.round(performance.now() - start)
  const skipped = verdict.skipped > 0 ? `, ${verdict.skipped} skipped` : ''
  const because = verdict.because === undefined ? '' : `: ${verdict.because}`
  if (verdict.failed === 0) {
    print(`ok    ${task.name}  ${verdict.passed} passed${skipped}  ${ms} ms`)
    return verdict
  }
  print(`FAIL  ${task.name}  ${verdict.failed} failed${because}  ${ms} ms`)
  print(ending.output.trimEnd().split('\n').slice(-OUTPUT_LINES_MAX).join('\n'))
  return verdict
}

const byExitCode = ({ exitCode, timedOut }: Ending): Tally & { because?: string } => {
  if (timedOut) return { passed: 0, failed: 1, skipped: 0, because: 'took too long' }
  return exitCode === 0
    ? { passed: 1, failed: 0, skipped: 0 }
    : { passed: 0, failed: 1, skipped: 0, because: `ended with ${exitCode ?? 'a signal'}` }
}

async function main(args: string[]): Promise<number> {
  process.chdir(`${import.meta.dirname}/..`)
  const stop = new AbortController()
  const stopped = () => stop.abort()
  process.on('SIGINT', stopped).on('SIGTERM', stopped)
  const { wanted, filter } = chosen(args)
  const tallies: Tally[] = []
  for (const floor of wanted)
    if (!stop.signal.aborted) tallies.push(await runFloor(floor, filter, stop.signal))
  const total = sum(tallies)
  if (stop.signal.aborted) print('stopped before the end')
  print(`\n${closingLine(total)}`)
  return total.failed > 0 || total.passed === 0 || stop.signal.aborted ? 1 : 0
}

try {
  process.exitCode = await main(process.argv.slice(2))
} catch (error: unknown) {
  if (!(error instanceof TypeError)) throw error
  process.stderr.write(`${error.message}\n`)
  process.exitCode = 2
}
