import type { Settings } from '../config.ts'
import { type Problem, problemLine } from './status.ts'

/** A problem with settings; with a `warning` they can be used all the same. */
export type Finding = Problem & { readonly severity?: 'error' | 'warning' }

/** What a check of settings came to, a line a finding. */
export type Report = { readonly usable: boolean; readonly lines: readonly string[] }

/** Findings as lines for people. */
export const reportOf = (findings: readonly Finding[]): Report => ({
  usable: findings.every(({ severity }) => severity === 'warning'),
  lines: findings.map(
    (finding) => `${finding.severity === 'warning' ? 'warning: ' : ''}${problemLine(finding)}`,
  ),
})

/** What the checks read of the world. */
export type Readers = {
  /** @throws NodeJS.ErrnoException */
  readText(path: string): Promise<string>
  /** Permission bits, as in chmod(1). @throws NodeJS.ErrnoException */
  modeOf(path: string): Promise<number>
  checkCertificate(pair: {
    readonly certificatePem: string
    readonly keyPem: string
    readonly now: Date
    readonly hostname: string
  }): readonly Finding[]
  /** The users of a passwd-file text. @throws Error that names the line. */
  usersIn(passwdText: string): Iterable<string>
  readonly now: Date
}

type NamedFile = { readonly setting: string; readonly path: string; readonly secret: boolean }
type Texts = ReadonlyMap<string, string>

/**
 * What is wrong with settings that are well-formed: files that are missing or open to everybody, certificates that
 * users would not accept, names and numbers that contradict each other. An empty list means that they can be used.
 */
export async function checkSettings(
  settings: Settings,
  readers: Readers,
): Promise<readonly Finding[]> {
  const files = await Promise.all(filesOf(settings).map((file) => inspect(file, readers)))
  const texts: Texts = new Map(
    files.flatMap(({ path, text }) => (text === undefined ? [] : [[path, text] as const])),
  )
  return [
    ...files.flatMap(({ problems }) => problems),
    ...certificateProblems(settings, texts, readers),
    ...accountProblems(settings, texts, readers),
    ...secretProblems(settings, texts),
    ...serviceProblems(settings),
    ...addressProblems(settings),
    ...uplinkProblems(settings),
  ]
}

function filesOf({ production, accounts, serving, noc }: Settings): readonly NamedFile[] {
  const { admin, tls } = production
  const file = (setting: string, path: string | undefined, secret: boolean) =>
    path === undefined ? [] : [{ setting, path, secret }]
  const { relay } = serving
  return [
    ...file('production.admin.passwordFile', admin.passwordFile, true),
    ...file('production.tls.certificateFile', tls.certificateFile, false),
    ...file('production.tls.keyFile', tls.keyFile, true),
    ...file('accounts.passwdFile', accounts.passwdFile, true),
    ...file(
      'serving.relay.passwordFile',
      relay.by === 'smarthost' ? relay.passwordFile : undefined,
      true,
    ),
    ...file('noc.caFile', noc?.caFile, false),
    ...file('noc.certificateFile', noc?.certificateFile, false),
    ...file('noc.keyFile', noc?.keyFile, true),
  ]
}

async function inspect(
  { setting, path, secret }: NamedFile,
  { readText, modeOf }: Readers,
): Promise<{ path: string; text?: string; problems: readonly Problem[] }> {
  const where = `${setting} (${path})`
  try {
    const [text, mode] = await Promise.all([readText(path), modeOf(path)])
    const open = secret && (mode & 0o007) !== 0
    const todo = `Run: chmod o= ${path}`
    return {
      path,
      text,
      problems: open ? [{ what: 'everybody on this machine may read a secret', where, todo }] : [],
    }
  } catch (error: unknown) {
    if (!(error instanceof Error && 'code' in error)) throw error
    const what = error.code === 'ENOENT' ? 'the file is not there' : `cannot be read: ${error.code}`
    return { path, problems: [{ what, where, todo: 'Put the file there or correct the path' }] }
  }
}

function certificateProblems(
  { production: { tls, hostname } }: Settings,
  texts: Texts,
  { checkCertificate, now }: Readers,
): readonly Finding[] {
  const [certificatePem, keyPem] = [texts.get(tls.certificateFile), texts.get(tls.keyFile)]
  return certificatePem === undefined || keyPem === undefined
    ? []
    : checkCertificate({ certificatePem, keyPem, now, hostname })
}

function accountProblems(
  { accounts: { passwdFile, aliases } }: Settings,
  texts: Texts,
  { usersIn }: Readers,
): readonly Finding[] {
  const text = texts.get(passwdFile)
  if (text === undefined) return []
  const where = `accounts.passwdFile (${passwdFile})`
  let users: ReadonlySet<string>
  try {
    users = new Set(usersIn(text))
  } catch (error: unknown) {
    const what = error instanceof Error ? error.message : String(error)
    return [{ what, where, todo: 'Correct the line: user:{SCHEME}hash' }]
  }
  if (users.size === 0)
    return [{ what: 'no account is protected', where, todo: 'Add a line user:{SCHEME}hash each' }]
  return Object.entries(aliases).flatMap(([address, targets]) =>
    targets
      .filter((user) => !users.has(user.toLowerCase()))
      .map((user) => ({
        what: `the alias leads to ${user}, who is no protected account`,
        where: `accounts.aliases.${address}`,
        todo: `Add ${user} to ${passwdFile} or correct the alias`,
      })),
  )
}

const secretProblems = ({ production: { admin } }: Settings, texts: Texts): readonly Problem[] =>
  texts.get(admin.passwordFile)?.trim() === ''
    ? [
        {
          what: 'the password is empty',
          where: `production.admin.passwordFile (${admin.passwordFile})`,
          todo: `Write the password of ${admin.user} into it`,
        },
      ]
    : []

function serviceProblems({ production: { services } }: Settings): readonly Finding[] {
  const ports = services.map(({ port }) => port)
  return services
    .map(({ port }, index) => ({ port, index }))
    .filter(({ port, index }) => ports.indexOf(port) < index)
    .map(({ port, index }) => ({
      what: `port ${port} is there twice`,
      where: `production.services.${index}`,
      todo: 'A port has one service: remove one of the two',
    }))
}

function addressProblems({ production, wire }: Settings): readonly Finding[] {
  const { users, management } = wire
  const own = [
    management.ipv4 === 'dhcp' ? undefined : management.ipv4.address,
    management.ipv6?.address,
  ]
  const stolen = production.addresses
    .flatMap(({ ipv4, ipv6 }) => [ipv4, ipv6])
    .filter((address) => address !== undefined && own.includes(address))
  return [
    ...stolen.map((address) => ({
      what: `${address} is production's address`,
      where: 'wire.management',
      todo: 'Give the appliance an address of its own',
    })),
    ...(management.mac === production.mac
      ? [
          {
            what: `${management.mac} is production's MAC address`,
            where: 'wire.management.mac',
            todo: 'Give the appliance a MAC address of its own',
          },
        ]
      : []),
    ...(users === wire.production
      ? [
          {
            what: `users and production are on one interface, ${users}`,
            where: 'wire.production',
            todo: 'Name the interface that the production server is cabled to',
          },
        ]
      : []),
  ]
}

function uplinkProblems({ noc }: Settings): readonly Finding[] {
  if (noc === undefined) return []
  const pair = [noc.certificateFile, noc.keyFile].filter((file) => file !== undefined)
  return [
    ...(noc.url.startsWith('mqtt://')
      ? [
          {
            what: 'telemetry would travel unencrypted',
            where: 'noc.url',
            todo: 'Use an mqtts:// address',
            severity: 'warning' as const,
          },
        ]
      : []),
    ...(pair.length === 1
      ? [
          {
            what: 'a certificate and its key go together, and one of them is missing',
            where: 'noc',
            todo: 'Give both noc.certificateFile and noc.keyFile, or neither',
          },
        ]
      : []),
  ]
}
