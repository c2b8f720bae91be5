import { readdir, readFile } from 'node:fs/promises'
import { programOf } from '../lab/bed/processes.ts'

const KIB_PER_MIB = 1_024
/** getconf CLK_TCK: the unit of times in /proc, fixed on Linux. */
const TICKS_PER_SECOND = 100

type Stat = {
  readonly pid: number
  readonly parent: number
  /** Of its own, and of those it has waited for. */
  readonly ownTicks: number
  readonly waitedTicks: number
}

/** proc(5): what stands after the command's name, which may itself contain parentheses. */
function statFrom(pid: number, text: string): Stat {
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  const at = (field: number) => Number(fields[field - 3])
  return { pid, parent: at(4), ownTicks: at(14) + at(15), waitedTicks: at(16) + at(17) }
}

const unlessGone = async (path: string): Promise<string | undefined> => {
  try {
    return await readFile(path, 'utf8')
  } catch {
    // A process may end at any moment; then there is nothing to read.
    return undefined
  }
}

async function everybody(): Promise<Stat[]> {
  const pids = (await readdir('/proc')).map(Number).filter((pid) => pid > 0)
  const stats = await Promise.all(
    pids.map(async (pid) => {
      const text = await unlessGone(`/proc/${pid}/stat`)
      return text === undefined ? [] : [statFrom(pid, text)]
    }),
  )
  return stats.flat()
}

/** A process and all that descend from it, the process itself first. */
async function family(pid: number): Promise<Stat[]> {
  const all = await everybody()
  const found = all.filter((stat) => stat.pid === pid)
  for (const parent of found) found.push(...all.filter((stat) => stat.parent === parent.pid))
  return found
}

export type Memory = {
  /** What the process itself has resident, and what its Node children do not share with others. */
  readonly residentMiB: number
  /** Both with shared pages divided among those who share them. */
  readonly proportionalMiB: number
  /** Proportional, everything else that it has started. */
  readonly othersMiB: number
}

/** What a Node program and its descendants occupy. */
export async function memoryOf(pid: number): Promise<Memory> {
  const node = await programOf(pid)
  let [residentMiB, proportionalMiB, othersMiB] = [0, 0, 0]
  for (const each of await family(pid)) {
    const rollup = await unlessGone(`/proc/${each.pid}/smaps_rollup`)
    const of = (field: string) =>
      Number(new RegExp(`^${field}:\\s+(\\d+)`, 'm').exec(rollup ?? '')?.[1] ?? 0) / KIB_PER_MIB
    if ((await programOf(each.pid)) === node) {
      residentMiB += each.pid === pid ? of('Rss') : of('Private_Clean') + of('Private_Dirty')
      proportionalMiB += of('Pss')
    } else othersMiB += of('Pss')
  }
  return { residentMiB, proportionalMiB, othersMiB }
}

export type Work = {
  /** Seconds of processor time of the process alone. */
  readonly ownS: number
  /** Of everybody it has started, also of those that have ended since. */
  readonly othersS: number
}

/** Processor time since the start. */
export async function workOf(pid: number): Promise<Work> {
  const [first, ...others] = await family(pid)
  if (first === undefined) throw new Error(`there is no process ${pid}`)
  const living = others.reduce((sum, each) => sum + each.ownTicks + each.waitedTicks, 0)
  return {
    ownS: first.ownTicks / TICKS_PER_SECOND,
    othersS: (first.waitedTicks + living) / TICKS_PER_SECOND,
  }
}
