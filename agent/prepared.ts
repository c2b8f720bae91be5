import { mkdir, readFile, rename } from 'node:fs/promises'
import type { Log } from '../firmware/log.ts'
import type { Settings } from './config.ts'
import { Facts } from './facts.ts'
import { Journal } from './journal.ts'
import type { Paths } from './paths.ts'
import { Ledger, LedgerDamaged } from './replica/mail/ledger.ts'
import { doveadmKey } from './serving/dovecot.ts'
import { passwdEntries } from './serving/passwd-file.ts'

/** What an appliance must have in hand before its rooms can be made. */
export type Made = {
  readonly users: ReadonlyMap<string, { readonly hash: string }>
  readonly key: string
  readonly adminPassword: string
  readonly relayPassword: string | undefined
  readonly tls: { readonly certificate: string; readonly key: string }
  readonly ledger: Ledger
  readonly journal: Journal
  readonly facts: Facts
}

/** Reads what the settings name and opens what is on the medium. @throws NodeJS.ErrnoException */
export async function prepared({
  settings,
  paths,
  log,
}: {
  readonly settings: Settings
  readonly paths: Paths
  readonly log: Log
}): Promise<Made> {
  await mkdir(paths.run, { recursive: true, mode: 0o711 })
  await mkdir(paths.queue, { recursive: true, mode: 0o700 })
  const { production, accounts, serving } = settings
  const relayFile = serving.relay.by === 'smarthost' ? serving.relay.passwordFile : undefined
  return {
    users: passwdEntries(await readFile(accounts.passwdFile, 'utf8')),
    key: await doveadmKey(paths),
    adminPassword: await secretIn(production.admin.passwordFile),
    relayPassword: relayFile === undefined ? undefined : await secretIn(relayFile),
    tls: {
      certificate: await readFile(production.tls.certificateFile, 'utf8'),
      key: await readFile(production.tls.keyFile, 'utf8'),
    },
    ledger: await openLedger(paths.ledger, log),
    journal: await Journal.open(paths.journal),
    facts: await Facts.open(paths.state, production.addresses[0]?.ipv4),
  }
}

/** A damaged ledger is set aside, never repaired: every account then proves itself anew. */
async function openLedger(path: string, log: Log): Promise<Ledger> {
  try {
    return Ledger.open(path)
  } catch (error: unknown) {
    if (!(error instanceof LedgerDamaged)) throw error
    log('error', 'ledger.damaged', { because: error.because, keptAs: `${path}.damaged` })
    for (const suffix of ['', '-wal', '-shm'])
      await rename(`${path}${suffix}`, `${path}.damaged${suffix}`).catch(() => undefined)
    return Ledger.open(path)
  }
}

/** A secret ends with its file; a line break that an editor added is not part of it. */
const secretIn = async (path: string): Promise<string> =>
  (await readFile(path, 'utf8')).replace(/\r?\n$/, '')
