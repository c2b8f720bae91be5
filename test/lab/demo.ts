import { writeFile } from 'node:fs/promises'
import { parseArgs } from 'node:util'
import { AgentSilent } from './bed/appliance.ts'
import { Bed } from './bed/bed.ts'
import { NeverCame } from './demo/happenings.ts'
import { reportOf, sightsOf } from './demo/outcome.ts'
import { pageOf } from './demo/page.ts'
import { pledgesText, tableOf } from './demo/printed.ts'
import { Story } from './demo/story.ts'
import { isMisuse, wholeNumber } from './misuse.ts'
import { nowMs } from './users/records.ts'

// npm run demo [-- --json FILE] [--users N] [--messages M]: one whole life cycle, twice, with real servers and clients.

const USERS = 20
const MESSAGES = 200
const USE_MS = { kill: 30_000, 'link-down': 20_000 } as const
const HOLD_MS = 5_000
const LINGER_MS = 6_000
const PAGE = 'demo-report.html'

const print = (text: string): void => {
  process.stdout.write(`${text}\n`)
}

const interrupted = new AbortController()
for (const name of ['SIGINT', 'SIGTERM'] as const)
  process.on(name, () => interrupted.abort(new Error(`interrupted by ${name}`)))

function optionsFrom(args: string[]): {
  json: string | undefined
  users: number
  messages: number
} {
  const { values } = parseArgs({
    args,
    options: { json: { type: 'string' }, users: { type: 'string' }, messages: { type: 'string' } },
  })
  return {
    json: values.json,
    users: wholeNumber('users', values.users ?? String(USERS), 2),
    messages: wholeNumber('messages', values.messages ?? String(MESSAGES), 1),
  }
}

async function main(): Promise<boolean> {
  const { json, users, messages } = optionsFrom(process.argv.slice(2))
  const startedMs = nowMs()
  const narrate = (atMs: number, text: string) =>
    print(`${((atMs - startedMs) / 1_000).toFixed(1).padStart(6)} s  ${text}`)

  narrate(
    nowMs(),
    `building: users ↔ appliance ↔ production, ${users} mailboxes, ${messages} mails each`,
  )
  const options = { users, messages, holdMs: HOLD_MS, lingerMs: LINGER_MS }
  const bed = await Bed.up(options, interrupted.signal)
  const story = new Story(bed, startedMs, narrate, interrupted.signal)
  try {
    const broken = await story.tell(USE_MS).then(
      () => undefined,
      (error: unknown) => {
        if (error instanceof NeverCame) return error.message
        throw error
      },
    )
    if (broken !== undefined) {
      narrate(nowMs(), `THIS DID NOT GO AS PROMISED: ${broken}`)
      for (const complaint of await story.complaints()) narrate(nowMs(), `    ${complaint}`)
    }
    narrate(nowMs(), 'people finish; what they were promised is compared with what is there')
    const verdict = await story.settle()
    const { tale } = story
    const report = reportOf(tale, verdict, story.equal, broken)
    const heads = tale.chapters.map(({ fault }) => fault)
    if (heads.length > 0) print(`\n${tableOf(heads, sightsOf(tale))}`)
    print(`\n${pledgesText(report.pledges)}\n`)
    if (json !== undefined) await writeFile(json, `${JSON.stringify(report, null, 2)}\n`)
    await writeFile(PAGE, pageOf(tale, report, new Date()))
    print(`the run as a page: ${PAGE}`)
    print(report.ok ? 'everything promised was kept' : 'NOT everything promised was kept')
    return report.ok
  } finally {
    story.abandon()
    await bed.down()
  }
}

try {
  process.exitCode = (await main()) ? 0 : 1
} catch (error: unknown) {
  const { aborted, reason } = interrupted.signal
  const said: unknown = aborted ? reason : error
  if (!(aborted || isMisuse(error) || error instanceof AgentSilent)) throw error
  process.stderr.write(`demo: ${said instanceof Error ? said.message : String(said)}\n`)
  process.exitCode = isMisuse(error) ? 2 : 1
}
