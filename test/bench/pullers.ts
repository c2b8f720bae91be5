import { chown, mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { settingsFrom } from '../../agent/config.ts'
import { pathsOf } from '../../agent/paths.ts'
import { replicatorConf } from '../../agent/serving/dovecot.ts'
import { MAIL_UID } from '../../agent/serving/dovecot-conf.ts'
import { inNamespace, run } from '../../firmware/command.ts'
import { ADMIN } from '../lab/bed/accounts.ts'
import type { Bed } from '../lab/bed/bed.ts'
import { PORTS, PRODUCTION } from '../lab/bed/plan.ts'
import { agentOf } from './beds.ts'
import { monotonicMs } from './clock.ts'

const COPY_MS_MAX = 300_000

/** A program that copies one account from production to a directory of its own, from where the appliance is. */
export type Puller = {
  /** Forgets what it has. */
  clear(): Promise<void>
  /** Copies what is missing; answers how long that took, in milliseconds. @throws {CommandFailed} */
  pull(): Promise<number>
}

async function timed(bed: Bed, program: string, args: readonly string[]): Promise<number> {
  const beganMs = monotonicMs()
  const command = inNamespace(bed.namespace('appliance'), { program, args })
  await run(command, { timeoutMs: COPY_MS_MAX })
  return monotonicMs() - beganMs
}

/** isync's mbsync into a Maildir, as its manual's example has it. */
export async function mbsync(bed: Bed, user: string, password: string): Promise<Puller> {
  const directory = join(bed.record.directory, 'mbsync')
  const conf = join(bed.record.directory, 'mbsyncrc')
  await writeFile(conf, mbsyncConf(directory, user, password), { mode: 0o600 })
  return {
    clear: async () => {
      await rm(directory, { recursive: true, force: true })
      await mkdir(join(directory, 'mail'), { recursive: true })
    },
    pull: () => timed(bed, 'mbsync', ['-q', '-c', conf, 'mail']),
  }
}

const mbsyncConf = (directory: string, user: string, password: string): string => `
IMAPAccount production
Host ${PRODUCTION.ipv4}
Port ${PORTS.imap}
User ${user}
Pass "${password}"
SSLType None
AuthMechs PLAIN LOGIN

IMAPStore production
Account production

MaildirStore copy
Path ${directory}/mail/
Inbox ${directory}/mail/INBOX
SubFolders Verbatim

Channel mail
Far :production:
Near :copy:
Patterns *
Create Near
Sync Pull
SyncState *
`

/** Dovecot's own `doveadm backup` by IMAP into mdbox, configured as the appliance's, and nothing around it. */
export async function doveadmBackup(bed: Bed, user: string): Promise<Puller> {
  const paths = pathsOf(join(bed.record.directory, 'doveadm'))
  const { settings: file } = agentOf(bed)
  const settings = settingsFrom(JSON.parse(await readFile(file, 'utf8')), file)
  const { text } = replicatorConf({ settings, paths, key: 'unused', adminPassword: ADMIN.password })
  const conf = join(bed.record.directory, 'doveadm.conf')
  await writeFile(conf, text, { mode: 0o600 })
  return {
    clear: async () => {
      await rm(paths.state, { recursive: true, force: true })
      for (const path of [paths.run, join(paths.mail, user)]) {
        await mkdir(path, { recursive: true })
        await chown(path, MAIL_UID, MAIL_UID)
      }
    },
    // Without `-u` no authentication service is asked who the user is, and so none needs to run.
    pull: () =>
      timed(bed, 'env', [
        ...[`USER=${user}`, `HOME=${join(paths.mail, user)}`],
        ...['doveadm', '-c', conf, 'backup', '-R', 'imapc:'],
      ]),
  }
}
