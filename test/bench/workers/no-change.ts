// Looks at an account in which nothing has changed, as the replicator does, again and again; prints each look's
// milliseconds. Runs beside the agent, over the same ledger, which a look without a finding only reads.
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { readSettings } from '../../../agent/config.ts'
import { pathsOf } from '../../../agent/paths.ts'
import { Doveadm } from '../../../agent/replica/mail/doveadm.ts'
import { openProduction } from '../../../agent/replica/mail/imap.ts'
import { Ledger } from '../../../agent/replica/mail/ledger.ts'
import { follow } from '../../../agent/replica/mail/passes.ts'
import { DOVEADM_PORT } from '../../../agent/serving/dovecot.ts'
import { monotonicMs } from '../clock.ts'

const WARMING = 3

const {
  settings: file,
  state,
  user,
  times,
} = JSON.parse(process.argv[2] ?? '') as {
  settings: string
  state: string
  user: string
  times: number
}
const settings = await readSettings(file)
const paths = pathsOf(state)
const key = await readFile(join(paths.run, 'doveadm.key'), 'utf8')
const ledger = Ledger.open(paths.ledger)
const client = await openProduction(settings, user)
const stores = { ledger, doveadm: new Doveadm({ port: DOVEADM_PORT, key }) }
const anew = new Set<string>()
const context = { stores, client, user, log: () => {}, anew, signal: new AbortController().signal }
for (let look = 0; look < times + WARMING; look += 1) {
  const beganMs = monotonicMs()
  const { outcome } = await follow(context)
  if (outcome !== 'nothing') throw new Error(`something changed: ${outcome}`)
  if (look >= WARMING) process.stdout.write(`${monotonicMs() - beganMs}\n`)
}
client.close()
ledger.close()
