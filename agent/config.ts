import { readFile } from 'node:fs/promises'
import * as v from 'valibot'
import { ipv4, ipv6, macAddress } from '../firmware/addresses.ts'
import { problemLines } from './config-problem.ts'

/** Settings that cannot be used. `problems` says, each in one line, what is wrong, where, and what to do. */
export class ConfigRejected extends Error {
  override readonly name = 'ConfigRejected'
  readonly path: string
  readonly problems: readonly string[]

  constructor(path: string, problems: readonly string[], cause?: unknown) {
    super(`${path}: ${problems.join('; ')}`, { cause })
    this.path = path
    this.problems = problems
  }
}

const branded = <T extends string>(make: (text: string) => T) =>
  v.pipe(
    v.string(),
    v.rawTransform<string, T>(({ dataset, addIssue, NEVER }) => {
      try {
        return make(dataset.value)
      } catch (error: unknown) {
        addIssue({ message: error instanceof Error ? error.message : String(error) })
        return NEVER
      }
    }),
  )

const whole = (least: number, most: number) =>
  v.pipe(v.number(), v.integer(), v.minValue(least), v.maxValue(most))
const port = whole(1, 65_535)
const interfaceName = v.pipe(
  v.string(),
  v.regex(/^[a-z][a-z0-9._-]{0,14}$/i, 'not an interface name'),
)
const path = v.pipe(v.string(), v.regex(/^\//, 'must be an absolute path'))

const address = v.strictObject({
  ipv4: branded(ipv4),
  ipv4Prefix: v.optional(whole(8, 32), 24),
  ipv6: v.optional(branded(ipv6)),
  ipv6Prefix: v.optional(whole(8, 128), 64),
  /** 802.1Q tag under which users reach this address; absent: untagged. */
  vlan: v.optional(whole(1, 4094)),
})

const service = v.strictObject({
  port,
  protocol: v.picklist(['imap', 'pop3', 'smtp', 'submission']),
  tls: v.picklist(['none', 'starttls', 'implicit']),
  /** Whether its failure alone is a reason to stand in. */
  essential: v.optional(v.boolean(), true),
})

const management = v.strictObject({
  interface: v.optional(interfaceName, 'mgmt0'),
  mac: branded(macAddress),
  ipv4: v.union([
    v.literal('dhcp'),
    v.strictObject({
      address: branded(ipv4),
      prefix: whole(8, 32),
      gateway: v.optional(branded(ipv4)),
    }),
  ]),
  ipv6: v.optional(
    v.strictObject({
      address: branded(ipv6),
      prefix: whole(8, 128),
      gateway: v.optional(branded(ipv6)),
    }),
  ),
})

const relay = v.variant('by', [
  /** Mail to other domains waits and is handed to production when it is back. */
  v.strictObject({ by: v.literal('production') }),
  v.strictObject({ by: v.literal('mx') }),
  v.strictObject({
    by: v.literal('smarthost'),
    host: v.string(),
    port: v.optional(port, 587),
    user: v.optional(v.string()),
    passwordFile: v.optional(path),
  }),
])

const schema = v.strictObject({
  production: v.strictObject({
    /** The first address is the one that probes and replication talk to. */
    addresses: v.pipe(v.array(address), v.minLength(1)),
    /** Learned from the wire when absent. */
    mac: v.optional(branded(macAddress)),
    gateways: v.optional(
      v.strictObject({ ipv4: v.optional(branded(ipv4)), ipv6: v.optional(branded(ipv6)) }),
      {},
    ),
    hostname: v.pipe(v.string(), v.regex(/^[a-z0-9.-]+$/i, 'not a host name')),
    domains: v.pipe(v.array(v.pipe(v.string(), v.toLowerCase())), v.minLength(1)),
    services: v.pipe(v.array(service), v.minLength(1)),
    /** One credential that may open every account. */
    admin: v.strictObject({
      user: v.string(),
      passwordFile: path,
      /** `master-user`: Dovecot's `user*admin`; `authzid`: SASL PLAIN on behalf of another (Cyrus, Dovecot). */
      method: v.optional(v.picklist(['master-user', 'authzid']), 'authzid'),
      /** IMAP port used for replication and for the logged-in probe. */
      imapPort: v.optional(port, 143),
      imapTls: v.optional(v.picklist(['none', 'starttls', 'implicit']), 'none'),
    }),
    /** Production's certificate and key, as given by its administrator: users must see the same one. */
    tls: v.strictObject({ certificateFile: path, keyFile: path }),
  }),
  accounts: v.strictObject({
    /** passwd-file(5) of Dovecot: `user:{SCHEME}hash`, a line an account; every user in it is protected. */
    passwdFile: path,
    /** Additional addresses: address → users. */
    aliases: v.optional(v.record(v.string(), v.array(v.string())), {}),
    /** When the list is known to be complete, mail to any other local address is refused for good (550). */
    complete: v.optional(v.boolean(), false),
  }),
  wire: v.strictObject({
    users: v.optional(interfaceName, 'eth0'),
    production: v.optional(interfaceName, 'eth1'),
    bridge: v.optional(interfaceName, 'br0'),
    /** Put before the names of the service, door and client namespaces. */
    namespacePrefix: v.optional(v.pipe(v.string(), v.regex(/^[a-z0-9-]{0,24}$/)), ''),
    management,
  }),
  judgement: v.optional(
    v.strictObject({
      policy: v.optional(v.picklist(['aggressive', 'default', 'lax']), 'default'),
      takeOver: v.optional(v.picklist(['automatic', 'by-order']), 'automatic'),
      giveBack: v.optional(v.picklist(['automatic', 'by-order']), 'automatic'),
      /** How long production must answer without a break before it is trusted again. */
      holdMs: v.optional(whole(0, 86_400_000), 60_000),
    }),
    {},
  ),
  replication: v.optional(
    v.strictObject({
      concurrency: v.optional(whole(1, 64), 4),
      /** Cheap change check of every account, whatever was or was not noticed. */
      checkMs: v.optional(whole(500, 3_600_000), 5_000),
      /** Full comparison of every account. */
      sweepMs: v.optional(whole(1_000, 86_400_000), 600_000),
    }),
    {},
  ),
  serving: v.optional(
    v.strictObject({
      /** How long live sessions may stay with us after production has taken over again. */
      lingerMs: v.optional(whole(0, 3_600_000), 30_000),
      messageBytesMax: v.optional(whole(10_000, 1_000_000_000), 52_428_800),
      relay: v.optional(relay, { by: 'production' }),
    }),
    {},
  ),
  noc: v.optional(
    v.strictObject({
      url: v.pipe(
        v.string(),
        v.regex(/^mqtts?:\/\/[^/\s]+/, 'must be an mqtt:// or mqtts:// address'),
      ),
      id: v.pipe(v.string(), v.regex(/^[a-z0-9-]+$/i)),
      caFile: v.optional(path),
      certificateFile: v.optional(path),
      keyFile: v.optional(path),
    }),
  ),
})

/** Everything an administrator decides. Units stand in the names; defaults are filled in. */
export type Settings = v.InferOutput<typeof schema>
export type Service = Settings['production']['services'][number]
export type ProductionAddress = Settings['production']['addresses'][number]

/** How a service is named in status, logs and telemetry: `imap:143`. */
export type ServiceName = `${Service['protocol']}:${number}`
export const serviceName = ({ protocol, port }: Pick<Service, 'protocol' | 'port'>): ServiceName =>
  `${protocol}:${port}`

/** Checks settings as data. @throws {ConfigRejected} with one line a problem. */
export function settingsFrom(data: unknown, source: string): Settings {
  const result = v.safeParse(schema, data)
  if (result.success) return result.output
  throw new ConfigRejected(source, problemLines(result.issues))
}

/** Reads and checks the settings file. @throws {ConfigRejected} */
export async function readSettings(file: string): Promise<Settings> {
  const text = await readFile(file, 'utf8').catch((error: unknown) => {
    throw new ConfigRejected(
      file,
      [`the settings cannot be read: ${String(error)}; give the path in UNDERSTUDY_SETTINGS`],
      error,
    )
  })
  let data: unknown
  try {
    data = JSON.parse(text)
  } catch (error: unknown) {
    throw new ConfigRejected(
      file,
      [`the settings are not JSON: ${String(error)}; correct the file`],
      error,
    )
  }
  return settingsFrom(data, file)
}
