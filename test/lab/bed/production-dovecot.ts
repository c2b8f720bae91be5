import type { CertificatePair } from './certificates.ts'
import { PORTS } from './plan.ts'

/** Where production's Dovecot keeps things; `store` is how it keeps mail. */
export type DovecotSite = {
  readonly directory: string
  readonly certificate: CertificatePair
  readonly store: 'mdbox' | 'maildir'
}

/** Owner of all mail: a number nobody on a Debian machine has. */
export const MAIL_UID = 61_077

export const dovecotConfPath = (directory: string): string => `${directory}/dovecot.conf`
export const lmtpSocket = (directory: string): string => `${directory}/run/lmtp`
export const saslSocket = (directory: string): string => `${directory}/run/auth-smtp`

/** The configuration of a small, ordinary production server (Dovecot 2.3). */
export function dovecotConf({ directory, certificate, store }: DovecotSite): string {
  return `
base_dir = ${directory}/run
state_dir = ${directory}/lib
log_path = ${directory}/dovecot.log
instance_name = production
protocols = imap pop3 lmtp
listen = *, ::
ssl = yes
ssl_cert = <${certificate.certificate}
ssl_key = <${certificate.key}
disable_plaintext_auth = no
auth_mechanisms = plain login
auth_username_format = %Ln
auth_master_user_separator = *
mail_uid = ${MAIL_UID}
mail_gid = ${MAIL_UID}
first_valid_uid = 1
mail_home = ${directory}/mail/%n
mail_location = ${store}:~/${store}
# A lab's machine does not lose power, and its disk is shared with other beds.
mail_fsync = never
mail_max_userip_connections = 5000
mailbox_list_index = yes
default_vsz_limit = 1G
default_client_limit = 5000
protocol lmtp {
  postmaster_address = postmaster@example.test
}
passdb {
  driver = passwd-file
  master = yes
  args = ${directory}/masters
  result_success = continue
}
passdb {
  driver = passwd-file
  args = ${directory}/users
}
userdb {
  driver = passwd-file
  args = ${directory}/users
  default_fields = uid=${MAIL_UID} gid=${MAIL_UID} home=${directory}/mail/%n
}
namespace inbox {
  inbox = yes
  separator = /
${SPECIAL_USE.map(([name, use]) => `  mailbox ${name} {\n    special_use = \\${use}\n  }`).join('\n')}
}
${login('imap', 'imaps')}
${login('pop3', 'pop3s')}
service auth {
  unix_listener auth-smtp {
    mode = 0660
    user = postfix
    group = postfix
  }
}
service imap {
  process_limit = 1000
}
service lmtp {
  process_min_avail = 2
  unix_listener lmtp {
    mode = 0660
    user = postfix
    group = postfix
  }
}
`
}

const SPECIAL_USE = [
  ['Drafts', 'Drafts'],
  ['Sent', 'Sent'],
  ['Trash', 'Trash'],
  ['Junk', 'Junk'],
  ['Archive', 'Archive'],
]

/** Login processes that serve many clients each, so that a client a 20 ms costs no process. */
const login = (plain: 'imap' | 'pop3', tls: 'imaps' | 'pop3s'): string => `
service ${plain}-login {
  service_count = 0
  process_min_avail = 1
  process_limit = 10
  inet_listener ${plain} {
    port = ${PORTS[plain]}
  }
  inet_listener ${tls} {
    port = ${PORTS[tls]}
    ssl = yes
  }
}`
