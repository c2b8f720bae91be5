import { join } from 'node:path'
import type { Service, Settings } from '../config.ts'
import type { Paths } from '../paths.ts'

/** The replicator's doveadm HTTP API, in the root namespace, on loopback only. */
export const DOVEADM_PORT = 8024
/** The replicator's own IMAP, in the root namespace, on loopback only, for the master user `REPLICA_MASTER`. */
export const REPLICA_IMAP_PORT = 8143
/** Opens every account at the replicator's IMAP; its password is the key of the doveadm API. */
export const REPLICA_MASTER = 'understudy'

/** Owner of the mail store: numeric, so that no passwd entry is needed. */
export const MAIL_UID = 5000
/** Added to a service's port for the listener that expects the PROXY protocol from the door. */
export const DOOR_PORT_OFFSET = 10_000
/** The private veth pair between the root namespace and the service namespace. */
export const BACKSTAGE = {
  service: '169.254.77.2',
  network: '169.254.77.0/30',
} as const

const SESSIONS_MAX = 1024
const CORES = 2

/** A configuration file, and the further files that it names. */
export type DovecotConf = {
  readonly text: string
  readonly files: readonly { readonly path: string; readonly text: string }[]
}

/** How mailboxes are named: must be as on production, or the replica's folders get other names. */
export type MailboxNames = {
  readonly separator: string
  readonly prefix: string
  /** Mailbox (without the prefix) → its special use (RFC 6154), such as `\Sent`. */
  readonly specialUse: Readonly<Record<string, string>>
}

export const usualMailboxNames: MailboxNames = {
  separator: '/',
  prefix: '',
  specialUse: { Drafts: '\\Drafts', Sent: '\\Sent', Trash: '\\Trash', Junk: '\\Junk' },
}

type Line = string | readonly Line[]

const render = (lines: readonly Line[], indent = ''): string =>
  lines
    .map((line) => (typeof line === 'string' ? `${indent}${line}\n` : render(line, `${indent}  `)))
    .join('')

const block = (name: string, ...lines: readonly Line[]): readonly Line[] => [
  `${name} {`,
  lines,
  '}',
]

/** A setting whose value may contain anything but a line break. @throws {RangeError} */
const quoted = (name: string, value: string): string => {
  if (/[\r\n\0]/.test(value)) throw new RangeError(`${name}: a line break cannot be configured`)
  return `${name} = "${value.replaceAll('\\', '\\\\').replaceAll('"', '\\"')}"`
}

/**
 * What both instances share. `mail_fsync = always`: with mdbox the body is synced in any case; `always` adds the
 * index log, so that a UID, flag or expunge that was acknowledged is still there after a power cut.
 */
const common = (name: string, paths: Paths, names: MailboxNames): readonly Line[] => [
  `base_dir = ${join(paths.run, name)}`,
  `state_dir = ${join(paths.run, name)}`,
  `instance_name = understudy-${name}`,
  'log_path = /dev/stderr',
  'log_timestamp = ""',
  'stats_writer_socket_path =',
  'shutdown_clients = yes',
  `mail_uid = ${MAIL_UID}`,
  `mail_gid = ${MAIL_UID}`,
  `first_valid_uid = ${MAIL_UID}`,
  `mail_home = ${paths.mail}/%u`,
  'mail_location = mdbox:~/mdbox',
  'mail_fsync = always',
  'mail_max_userip_connections = 1000',
  'recipient_delimiter =',
  'auth_mechanisms = plain login',
  // Names are checked against the list of accounts, which may hold any character that is legal in an address.
  'auth_username_chars =',
  // Counting failures per client address would punish everybody behind the same router.
  ...block('service anvil', ...block('unix_listener anvil-auth-penalty', 'mode = 0')),
  ...block('service auth', `client_limit = ${4 * SESSIONS_MAX}`),
  ...block(
    'namespace inbox',
    'inbox = yes',
    quoted('separator', names.separator),
    quoted('prefix', names.prefix),
    ...Object.entries(names.specialUse).flatMap(([mailbox, use]) =>
      block(`mailbox "${mailbox.replaceAll('"', '\\"')}"`, `special_use = ${use}`),
    ),
  ),
]

const staticUsers = (paths: Paths, ...more: readonly string[]): readonly Line[] =>
  block(
    'userdb',
    'driver = static',
    ['args =', `uid=${MAIL_UID} gid=${MAIL_UID}`, `home=${paths.mail}/%u`, ...more].join(' '),
  )

const production = (settings: Settings, password: string): readonly Line[] => {
  const { addresses, admin } = settings.production
  const tls = { none: 'no', starttls: 'starttls', implicit: 'imaps' }[admin.imapTls]
  return [
    `imapc_host = ${addresses[0]?.ipv4}`,
    `imapc_port = ${admin.imapPort}`,
    `imapc_ssl = ${tls}`,
    // The name in production's certificate is not the address that is dialled, its issuer need not be known here.
    'imapc_ssl_verify = no',
    quoted('imapc_password', password),
    ...(admin.method === 'authzid'
      ? [
          'imapc_user = %u',
          quoted('imapc_master_user', admin.user),
          'imapc_sasl_mechanisms = plain',
        ]
      : [quoted('imapc_user', `%u*${admin.user.replaceAll('%', '%%')}`)]),
    'imapc_features = rfc822.size fetch-headers fetch-bodystructure modseq',
    // A production that fell silent must not hold up a pull for Dovecot's five minutes.
    'imapc_cmd_timeout = 30s',
    'mail_prefetch_count = 20',
    // A folder must be committed in one transaction: only then are production's MODSEQs kept.
    'dsync_commit_msgs_interval = 1000000',
  ]
}

export type ReplicatorOptions = {
  readonly settings: Settings
  readonly paths: Paths
  /** Key of the doveadm API and password of `REPLICA_MASTER`. */
  readonly key: string
  /** Of `production.admin`. */
  readonly adminPassword: string
  readonly names?: MailboxNames
  readonly doveadmPort?: number
  readonly imapPort?: number
}

/** The instance that pulls from production (`doveadm backup -R … imapc:`) and opens the replica to the agent alone. */
export function replicatorConf(options: ReplicatorOptions): DovecotConf {
  const { settings, paths, key, names = usualMailboxNames } = options
  const text = render([
    ...common('replicator', paths, names),
    'protocols = imap',
    'listen = 127.0.0.1',
    'ssl = no',
    'disable_plaintext_auth = no',
    'auth_master_user_separator = *',
    // Whoever holds the key opens any account; nobody else opens any.
    ...block('passdb', 'driver = static', 'master = yes', `args = password={PLAIN}${key}`),
    ...block('passdb', 'driver = static', 'args = nopassword', 'deny = yes'),
    ...staticUsers(paths, 'allow_all_users=yes'),
    `doveadm_api_key = ${key}`,
    ...production(settings, options.adminPassword),
    ...block(
      'service doveadm',
      ...block('inet_listener http', `port = ${options.doveadmPort ?? DOVEADM_PORT}`),
      // Each request has a process of its own: one that waits already saves its start.
      'process_min_avail = 2',
      'process_limit = 128',
      'vsz_limit = 1G',
    ),
    ...block(
      'service imap-login',
      ...block('inet_listener imap', `port = ${options.imapPort ?? REPLICA_IMAP_PORT}`),
      ...block('inet_listener imaps', 'port = 0'),
      'service_count = 0',
      'process_limit = 1',
      `client_limit = ${SESSIONS_MAX}`,
    ),
    ...block('service imap', `process_limit = ${SESSIONS_MAX}`, 'vsz_limit = 1G'),
  ])
  return { text, files: [] }
}

export type ServiceOptions = {
  readonly settings: Settings
  readonly paths: Paths
  readonly names?: MailboxNames
  /** Socket of the password oracle. */
  readonly oracle: string
  /** What production says first, after `* OK` or `+OK`. */
  readonly loginGreeting?: string
  /** Production's `pop3_uidl_format`, when it is a Dovecot with another one than Dovecot's own. */
  readonly pop3UidlFormat?: string
  /** Where to listen: every address, unless a test says otherwise. */
  readonly listen?: readonly string[]
  /** Where the door's connections arrive, and from where they may come. */
  readonly door?: { readonly address: string; readonly network: string }
}

type UserProtocol = 'imap' | 'pop3'

const listeners = (service: Service, door: string): readonly Line[] => {
  const tls = service.tls === 'implicit' ? ['ssl = yes'] : []
  return [
    ...block(`inet_listener users_${service.port}`, `port = ${service.port}`, ...tls),
    ...block(
      `inet_listener door_${service.port}`,
      `address = ${door}`,
      `port = ${service.port + DOOR_PORT_OFFSET}`,
      'haproxy = yes',
      ...tls,
    ),
  ]
}

const serve = (
  protocol: UserProtocol,
  services: readonly Service[],
  door: string,
): readonly Line[] => {
  const own = services.filter((service) => service.protocol === protocol)
  if (own.length === 0) return []
  const plain = own.some(({ tls }) => tls === 'none')
  const secure = own.some(({ tls }) => tls !== 'none')
  return [
    ...block(
      `protocol ${protocol}`,
      `disable_plaintext_auth = ${plain ? 'no' : 'yes'}`,
      `ssl = ${secure ? 'yes' : 'no'}`,
    ),
    ...block(
      `service ${protocol}-login`,
      ...block(`inet_listener ${protocol}`, 'port = 0'),
      ...block(`inet_listener ${protocol}s`, 'port = 0'),
      ...own.flatMap((service) => listeners(service, door)),
      // A process a core serves all logins, TLS included, and waits: the first user meets no start-up time.
      'service_count = 0',
      `process_min_avail = ${CORES}`,
      `process_limit = ${CORES}`,
      `client_limit = ${SESSIONS_MAX}`,
    ),
    ...block(
      `service ${protocol}`,
      `process_limit = ${SESSIONS_MAX}`,
      'process_min_avail = 1',
      'service_count = 100',
    ),
  ]
}

/** The instance that answers users, inside the service namespace, on production's own ports. */
export function serviceConf(options: ServiceOptions): DovecotConf {
  const { settings, paths, names = usualMailboxNames } = options
  const { services, addresses, tls, domains } = settings.production
  const everywhere = addresses.some(({ ipv6 }) => ipv6 !== undefined) ? ['*', '::'] : ['*']
  const door = options.door ?? { address: BACKSTAGE.service, network: BACKSTAGE.network }
  const protocols = (['imap', 'pop3'] as const).filter((protocol) =>
    services.some((service) => service.protocol === protocol),
  )
  const dict = join(paths.run, 'service-users.conf')
  const text = render([
    ...common('service', paths, names),
    `protocols = ${[...protocols, 'lmtp'].join(' ')}`,
    `listen = ${(options.listen ?? everywhere).join(', ')}`,
    'ssl = yes',
    `ssl_cert = <${tls.certificateFile}`,
    `ssl_key = <${tls.keyFile}`,
    ...(options.loginGreeting === undefined
      ? []
      : [quoted('login_greeting', options.loginGreeting)]),
    ...(options.pop3UidlFormat === undefined
      ? []
      : [quoted('pop3_uidl_format', options.pop3UidlFormat)]),
    `haproxy_trusted_networks = ${door.network}`,
    'auth_worker_max_count = 8',
    ...block('passdb', 'driver = dict', `args = ${dict}`),
    ...staticUsers(paths),
    ...block('service auth', ...block('unix_listener auth-client', 'mode = 0600')),
    ...protocols.flatMap((protocol) => serve(protocol, services, door.address)),
    ...block('service lmtp', ...block('unix_listener lmtp', 'mode = 0600'), 'process_limit = 8'),
    ...block('protocol lmtp', `postmaster_address = postmaster@${domains[0]}`),
  ])
  return { text, files: [{ path: dict, text: dictConf(options.oracle) }] }
}

const dictConf = (oracle: string): string =>
  render([
    `uri = proxy:${oracle}:understudy`,
    'default_pass_scheme = PLAIN',
    'iterate_disable = yes',
    ...block('key passdb', 'key = passdb/%u', 'format = json'),
    'passdb_objects = passdb',
  ])
