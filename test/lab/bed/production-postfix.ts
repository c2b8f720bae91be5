import type { CertificatePair } from './certificates.ts'
import { DOMAIN, HOSTNAME, PORTS } from './plan.ts'

/** One of possibly many Postfix instances: everything it writes is under `directory`. */
export type PostfixSite = {
  readonly directory: string
  readonly certificate: CertificatePair
  readonly lmtp: string
  readonly sasl: string
}

export const postfixConfDirectory = (directory: string): string => `${directory}/etc`

/** main.cf of postconf(5): local mail goes to Dovecot, nothing asks the DNS, nothing waits longer than it must. */
export function mainCf({ directory, certificate, lmtp, sasl }: PostfixSite): string {
  const settings = {
    compatibility_level: '3.6',
    queue_directory: `${directory}/queue`,
    data_directory: `${directory}/data`,
    command_directory: '/usr/sbin',
    daemon_directory: '/usr/lib/postfix/sbin',
    maillog_file: `${directory}/postfix.log`,
    maillog_file_prefixes: directory,
    myhostname: HOSTNAME,
    mydestination: '',
    mynetworks: '127.0.0.0/8 [::1]/128',
    inet_interfaces: 'all',
    inet_protocols: 'all',
    disable_dns_lookups: 'yes',
    smtpd_peername_lookup: 'no',
    alias_maps: '',
    alias_database: '',
    virtual_mailbox_domains: DOMAIN,
    virtual_mailbox_maps: `texthash:${directory}/etc/mailboxes`,
    virtual_transport: `lmtp:unix:${lmtp}`,
    smtpd_client_restrictions: '',
    smtpd_relay_restrictions:
      'permit_mynetworks, permit_sasl_authenticated, reject_unauth_destination',
    smtpd_client_connection_count_limit: '0',
    smtpd_sasl_type: 'dovecot',
    smtpd_sasl_path: sasl,
    smtpd_tls_cert_file: certificate.certificate,
    smtpd_tls_key_file: certificate.key,
    smtpd_tls_security_level: 'may',
    smtpd_timeout: '60s',
    in_flow_delay: '0',
    queue_run_delay: '2s',
    minimal_backoff_time: '2s',
    maximal_backoff_time: '5s',
    message_size_limit: '52428800',
    default_process_limit: '200',
  }
  return Object.entries(settings)
    .map(([name, value]) => `${name} = ${value}\n`)
    .join('')
}

/** master.cf of master(5): the three doors for mail, and the services behind them, none in a chroot. */
export function masterCf(): string {
  const authenticated =
    '\n  -o smtpd_sasl_auth_enable=yes -o smtpd_relay_restrictions=permit_sasl_authenticated,reject'
  const doors = [
    `${PORTS.smtp} inet n - n - - smtpd`,
    `${PORTS.submission} inet n - n - - smtpd -o smtpd_tls_security_level=encrypt${authenticated}`,
    `${PORTS.submissions} inet n - n - - smtpd -o smtpd_tls_wrappermode=yes${authenticated}`,
  ]
  return [...doors, ...BEHIND_THE_DOORS].map((line) => `${line}\n`).join('')
}

const BEHIND_THE_DOORS = [
  'pickup unix n - n 60 1 pickup',
  'cleanup unix n - n - 0 cleanup',
  'qmgr unix n - n 300 1 qmgr',
  'tlsmgr unix - - n 1000? 1 tlsmgr',
  'rewrite unix - - n - - trivial-rewrite',
  'bounce unix - - n - 0 bounce',
  'defer unix - - n - 0 bounce',
  'trace unix - - n - 0 bounce',
  'verify unix - - n - 1 verify',
  'flush unix n - n 1000? 0 flush',
  'proxymap unix - - n - - proxymap',
  'proxywrite unix - - n - 1 proxymap',
  'smtp unix - - n - - smtp',
  'relay unix - - n - - smtp',
  'showq unix n - n - - showq',
  'error unix - - n - - error',
  'retry unix - - n - - error',
  'discard unix - - n - - discard',
  'local unix - n n - - local',
  'virtual unix - n n - - virtual',
  'lmtp unix - - n - - lmtp',
  'anvil unix - - n - 1 anvil',
  'scache unix - - n - 1 scache',
  'postlog unix-dgram n - n - 1 postlogd',
]
