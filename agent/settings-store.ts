import { readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { DurableFile } from '../firmware/durable-file.ts'
import type { Log } from '../firmware/log.ts'
import { ConfigRejected, readSettings, type Settings, settingsFrom } from './config.ts'
import { checkSettings, type Finding } from './console/settings-check.ts'
import type { Problem } from './console/status.ts'
import { checkCertificate } from './serving/certificate.ts'
import { passwdEntries } from './serving/passwd-file.ts'

/** The settings in force, if there are any, and what is wrong with the file or with them. */
export type SettingsInForce = {
  readonly settings: Settings | undefined
  /** Whether what is in force is what stands in the file. */
  readonly accepted: boolean
  readonly problems: readonly Problem[]
}

/** The settings file, and a copy of the last one that was good: a bad file never replaces it. */
export class SettingsStore {
  readonly file: string
  readonly #accepted: DurableFile<unknown>
  readonly #log: Log

  constructor(file: string, state: string, log: Log) {
    this.file = file
    this.#accepted = new DurableFile<unknown>(join(state, 'settings.accepted'))
    this.#log = log
  }

  /** Reads the file; when it is bad, answers the last good settings and says what is wrong, once in the log too. */
  async load(now: Date): Promise<SettingsInForce> {
    const { settings, problems } = await this.#read(now)
    for (const problem of problems) this.#log('error', 'settings.doubted', problem)
    if (settings !== undefined) {
      // Kept as it stands in the file, so that defaults of a later version apply to it too.
      await this.#accepted.write(JSON.parse(await readFile(this.file, 'utf8')))
      return { settings, accepted: true, problems }
    }
    const last = await this.#accepted.read()
    if (last === null) return { settings: undefined, accepted: false, problems }
    return { settings: settingsFrom(last, 'the last good settings'), accepted: false, problems }
  }

  async #read(now: Date): Promise<{ settings?: Settings; problems: readonly Finding[] }> {
    try {
      const settings = await readSettings(this.file)
      const problems = await checkSettings(settings, readersAt(now))
      const usable = problems.every(({ severity }) => severity === 'warning')
      return usable ? { settings, problems } : { problems }
    } catch (error: unknown) {
      if (!(error instanceof ConfigRejected)) throw error
      const todo = 'Correct the file, then: understudy reload'
      return { problems: error.problems.map((what) => ({ what, where: error.path, todo })) }
    }
  }
}

/** The checks' readers, on the real file system. */
export const readersAt = (now: Date) => ({
  readText: (path: string) => readFile(path, 'utf8'),
  modeOf: async (path: string) => (await stat(path)).mode,
  checkCertificate,
  usersIn: (text: string) => passwdEntries(text).keys(),
  now,
})
