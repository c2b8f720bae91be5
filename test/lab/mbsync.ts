import { mkdir, readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Account } from './bed/accounts.ts'
import type { Bed } from './bed/bed.ts'
import { PORTS, PRODUCTION } from './bed/plan.ts'
import { inBed } from './bed/record.ts'

/**
 * A real client with a memory, mbsync(1): it keeps UIDVALIDITY and UIDs from one time to the next, refuses a folder
 * whose UIDVALIDITY changed, and fetches what it believes to be new.
 */
export class Mbsync {
  readonly #bed: Bed
  readonly #directory: string

  private constructor(bed: Bed, directory: string) {
    this.#bed = bed
    this.#directory = directory
  }

  static async of(bed: Bed, account: Account): Promise<Mbsync> {
    const directory = inBed(bed.record, 'mbsync')
    await mkdir(join(directory, 'mail'), { recursive: true })
    await writeFile(
      join(directory, 'rc'),
      confFor(directory, inBed(bed.record, 'certificates', 'production.pem'), account),
      { mode: 0o600 },
    )
    return new Mbsync(bed, directory)
  }

  /** Fetches; answers how many messages it took for new. @throws {CommandFailed} when it is not content */
  async pull(): Promise<number> {
    const before = await this.#messages()
    await this.#bed.inside('users', 'mbsync', ['-c', join(this.#directory, 'rc'), '-a'])
    return (await this.#messages()) - before
  }

  async #messages(): Promise<number> {
    const files = await readdir(join(this.#directory, 'mail'), { recursive: true })
    return files.filter((file) => /\/(cur|new)\/./.test(file)).length
  }
}

const confFor = (directory: string, certificate: string, { user, password }: Account): string => `
IMAPAccount production
Host ${PRODUCTION.ipv4}
Port ${PORTS.imap}
User ${user}
Pass ${password}
SSLType STARTTLS
CertificateFile ${certificate}

IMAPStore far
Account production

MaildirStore near
Path ${directory}/mail/
Inbox ${directory}/mail/INBOX
SubFolders Verbatim

Channel everything
Far :far:
Near :near:
Patterns *
Create Near
Sync Pull
SyncState *
`
