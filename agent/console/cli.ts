import { ConfigRejected, readSettings } from '../config.ts'
import { locations } from '../locations.ts'
import { readersAt } from '../settings-store.ts'
import { ask } from './ask.ts'
import { execute } from './command-line.ts'
import { controlPath } from './control.ts'
import { checkSettings, type Report, reportOf } from './settings-check.ts'

const { settingsFile, paths } = locations(process.env)

async function check(path: string): Promise<Report> {
  try {
    const findings = await checkSettings(await readSettings(path), readersAt(new Date()))
    return reportOf(findings)
  } catch (error: unknown) {
    if (!(error instanceof ConfigRejected)) throw error
    return { usable: false, lines: error.problems.map((line) => `${path}: ${line}`) }
  }
}

const { exitCode, out, errors } = await execute(process.argv.slice(2), {
  settingsPath: settingsFile,
  ask: (verb, args) => ask(controlPath(paths), verb, args),
  check,
})
for (const line of out) process.stdout.write(`${line}\n`)
for (const line of errors) process.stderr.write(`${line}\n`)
process.exitCode = exitCode
