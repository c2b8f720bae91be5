import type { Settings } from '../../agent/config.ts'
import { BackSync } from '../../agent/replica/mail/backsync.ts'
import { Doveadm, type DoveadmSettings } from '../../agent/replica/mail/doveadm.ts'
import { openProduction, openReplica, type ReplicaAccess } from '../../agent/replica/mail/imap.ts'
import { Ledger } from '../../agent/replica/mail/ledger.ts'
import { onCommand } from './backsync-bed.ts'

/** Pushes one account and is killed after so many commands to production. */
export type Job = {
  readonly settings: Settings
  readonly access: ReplicaAccess
  readonly doveadm: DoveadmSettings
  readonly ledger: string
  readonly user: string
  readonly killAfter: number
}

const job: Job = JSON.parse(process.argv[2] ?? '{}')
let commands = 0
const backSync = new BackSync({
  settings: job.settings,
  ledger: Ledger.open(job.ledger),
  doveadm: new Doveadm(job.doveadm),
  log: () => {},
  openProduction: async (user, options) => {
    const client = await openProduction(job.settings, user, options)
    onCommand(client, () => {
      commands += 1
      if (commands === job.killAfter) process.kill(process.pid, 'SIGKILL')
    })
    return client
  },
  openReplica: (user, options) => openReplica(job.access, user, options),
})
await backSync.push(job.user, { final: true })
process.exit(0)
