import { readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Account } from './accounts.ts'
import { directoryOf, recordPathOf } from './plan.ts'

/** What later invocations must know of a bed. */
export type BedRecord = {
  readonly prefix: string
  readonly directory: string
  readonly accounts: readonly Account[]
  readonly ca: string
  readonly appliance: ApplianceRecord
  /** The operations centre's broker, and a client's certificate that it accepts. */
  readonly noc?: {
    readonly url: string
    readonly ca: string
    readonly certificate: string
    readonly key: string
  }
}

export type ApplianceRecord =
  | { readonly kind: 'plain-bridge' }
  | {
      readonly kind: 'agent'
      readonly pid: number
      readonly settings: string
      readonly state: string
    }

/** No bed, several beds, or none of that name: says in one line what to do. */
export class NoSuchBed extends Error {
  override readonly name = 'NoSuchBed'
}

export async function writeRecord(record: BedRecord): Promise<void> {
  const path = recordPathOf(record.prefix)
  await writeFile(`${path}.next`, JSON.stringify(record, null, 2), { mode: 0o600 })
  await rename(`${path}.next`, path)
}

export const forgetRecord = async (prefix: string): Promise<void> => {
  await rm(recordPathOf(prefix), { force: true })
}

/** The bed of that prefix, else the only one. @throws {NoSuchBed} */
export async function findRecord(prefix?: string): Promise<BedRecord> {
  const prefixes = await recordedPrefixes()
  const listed = prefixes.map((one) => one.replace(/-$/, '')).join(', ')
  if (prefixes.length === 0)
    throw new NoSuchBed('there is no bed; make one with: npm run lab -- up')
  const wanted =
    prefix === undefined
      ? prefixes
      : prefixes.filter((one) => one.replace(/-$/, '') === prefix.replace(/-$/, ''))
  const [only, another] = wanted
  if (only === undefined) throw new NoSuchBed(`there is no bed ${prefix}; there are: ${listed}`)
  if (another !== undefined)
    throw new NoSuchBed(`there are several beds (${listed}); say which with --prefix`)
  return JSON.parse(await readFile(recordPathOf(only), 'utf8')) as BedRecord
}

async function recordedPrefixes(): Promise<string[]> {
  const files = await readdir(tmpdir())
  return files.flatMap((file) => {
    const found = /^understudy-lab-(us[a-z0-9]{4})\.json$/.exec(file)
    return found === null ? [] : [`${found[1]}-`]
  })
}

/** Removes what a bed wrote. */
export async function removeFiles(prefix: string): Promise<void> {
  await rm(directoryOf(prefix), { recursive: true, force: true, maxRetries: 5 })
  await forgetRecord(prefix)
}

/** A path in a bed's directory. */
export const inBed = (record: Pick<BedRecord, 'directory'>, ...parts: string[]): string =>
  join(record.directory, ...parts)
