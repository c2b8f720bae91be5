import { mkdir } from 'node:fs/promises'
import { systemClock } from '../firmware/clock.ts'
import { run } from '../firmware/command.ts'
import { jsonLog } from '../firmware/log.ts'
import { Appliance } from './appliance.ts'
import { Control, controlPath } from './console/control.ts'
import { problemLine } from './console/status.ts'
import type { Orders } from './console/verbs.ts'
import { locations } from './locations.ts'
import { unconfiguredStatus } from './report.ts'
import { SettingsStore } from './settings-store.ts'
import { VERSION } from './version.ts'

const log = jsonLog((line) => process.stdout.write(line), systemClock.date)
const { settingsFile, paths } = locations(process.env)
const stop = new AbortController()
for (const signal of ['SIGTERM', 'SIGINT'] as const)
  process.once(signal, () => stop.abort(new Error(signal)))

await mkdir(paths.run, { recursive: true })
const store = new SettingsStore(settingsFile, paths.state, log)
log('info', 'agent.started', { version: VERSION, settingsFile, state: paths.state })

/** One life with the settings in force; ends at `stop`, or when other settings are to be used. */
async function live(): Promise<void> {
  let checked = await store.load(systemClock.date())
  const { settings } = checked
  const life = new AbortController()
  const either = AbortSignal.any([stop.signal, life.signal])
  const reload: Orders['reload'] = async () => {
    const next = await store.load(systemClock.date())
    if (!next.accepted) {
      checked = next
      return { accepted: false, because: next.problems.map(problemLine).join(' ') }
    }
    life.abort(new Error('the settings changed'))
    return { accepted: true }
  }
  const path = controlPath(paths)
  if (settings === undefined) {
    const sinceMs = systemClock.now()
    const none = { accepted: false, because: 'there are no settings that could be used' } as const
    const orders: Orders = {
      status: () =>
        unconfiguredStatus(VERSION, settingsFile, checked.problems, systemClock.now() - sinceMs),
      takeOver: () => Promise.resolve(none),
      giveBack: () => Promise.resolve(none),
      resync: () => Promise.resolve(none),
      reload,
    }
    return new Control({ path, orders, log }).run(either)
  }
  const around = { settings, settingsFile, paths, version: VERSION, run, log }
  const appliance = await Appliance.make({
    ...around,
    clock: systemClock,
    checked: () => checked,
  })
  const control = new Control({ path, orders: appliance.orders(reload), log })
  const answering = control.run(either)
  try {
    await appliance.run(either)
  } finally {
    life.abort()
    await answering
  }
}

try {
  while (!stop.signal.aborted) await live()
  log('info', 'agent.stopped')
} catch (error: unknown) {
  log('error', 'agent.failed', { error, stack: error instanceof Error ? error.stack : undefined })
  process.exitCode = 1
}
// What is still open belongs to a part that has ended; nothing of it may keep a dead agent alive.
process.exit()
