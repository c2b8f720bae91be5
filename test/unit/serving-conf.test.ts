// Goal: both configurations say what the settings say, and a certificate's faults are named before users see them.
// Method: the texts, not a server; certificates made by openssl(1).
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { settingsFrom } from '../../agent/config.ts'
import { pathsOf } from '../../agent/paths.ts'
import { checkCertificate } from '../../agent/serving/certificate.ts'
import { Dovecot, replicatorConf, serviceConf } from '../../agent/serving/dovecot.ts'
import { leastSettings } from '../fakes/settings.ts'

const paths = pathsOf('/s')
const test = suite('serving conf')

const settings = (production: object = {}) => {
  const least = leastSettings()
  return settingsFrom({ ...least, production: { ...least.production, ...production } }, 'test')
}

const service = (production: object, more: object = {}): string =>
  serviceConf({ settings: settings(production), paths, oracle: '/s/run/oracle', ...more }).text

const replicator = (production: object = {}): string =>
  replicatorConf({ settings: settings(production), paths, key: 'k', adminPassword: 'p"w\\' }).text

test('each service gets a listener for users and one for the door', () => {
  const services = [
    { port: 143, protocol: 'imap', tls: 'starttls' },
    { port: 993, protocol: 'imap', tls: 'implicit' },
  ]
  const text = service({ services })
  assert.match(text, /inet_listener users_143 \{\n\s+port = 143\n\s+\}/)
  assert.match(text, /inet_listener users_993 \{\n\s+port = 993\n\s+ssl = yes\n\s+\}/)
  assert.match(text, /address = 169\.254\.77\.2\n\s+port = 10993\n\s+haproxy = yes\n\s+ssl = yes/)
  assert.match(text, /protocols = imap lmtp\n/)
  assert.match(text, /disable_plaintext_auth = yes/)
})

test('a service without TLS takes passwords in the clear, as production does', () => {
  const text = service({ services: [{ port: 110, protocol: 'pop3', tls: 'none' }] })
  assert.match(text, /protocol pop3 \{\n\s+disable_plaintext_auth = no\n\s+ssl = no\n/)
})

test('IPv6 is listened on only if production has it', () => {
  assert.match(service({}), /listen = \*\n/)
  const addresses = [{ ipv4: '10.77.0.10', ipv6: 'fd77::10' }]
  assert.match(service({ addresses }), /listen = \*, ::\n/)
})

test('greeting and UIDL format are production’s when they are given', () => {
  const text = service({}, { loginGreeting: 'Ready "now"', pop3UidlFormat: '%g' })
  assert.match(text, /login_greeting = "Ready \\"now\\""\n/)
  assert.match(text, /pop3_uidl_format = "%g"\n/)
  assert.throws(() => service({}, { loginGreeting: 'a\nb' }), /line break/)
})

test('production is opened on behalf of each user, in the way the settings say', () => {
  const admin = { user: 'admin', passwordFile: '/p', imapPort: 993, imapTls: 'implicit' }
  const byAuthzid = replicator({ admin: { ...admin, method: 'authzid' } })
  assert.match(byAuthzid, /imapc_user = %u\n\s*imapc_master_user = "admin"\n/)
  assert.match(byAuthzid, /imapc_sasl_mechanisms = plain\n/)
  assert.match(byAuthzid, /imapc_port = 993\nimapc_ssl = imaps\n/)
  const byMaster = replicator({ admin: { ...admin, method: 'master-user' } })
  assert.match(byMaster, /imapc_user = "%u\*admin"\n/)
  assert.not.match(byMaster, /imapc_master_user/)
})

test('a password with special characters stays one value', () => {
  assert.match(replicator(), /imapc_password = "p\\"w\\\\"\n/)
})

test('a folder is committed in one transaction, so that MODSEQs are kept', () => {
  assert.match(replicator(), /dsync_commit_msgs_interval = 1000000\n/)
  assert.match(replicator(), /imapc_features = .*modseq/)
})

test('a state directory that is too deep for sockets is refused', () => {
  const conf = { text: '', files: [] }
  const deep = pathsOf(`/${'d'.repeat(90)}`)
  const make = () => new Dovecot({ name: 'service', conf, paths: deep, log: () => {} })
  assert.throws(make, /shorter state directory/)
})

type Pair = { readonly certificatePem: string; readonly keyPem: string }

const pairFor = (name: string): Pair => {
  const directory = mkdtempSync('/tmp/ut')
  const [key, certificate] = [join(directory, 'key'), join(directory, 'certificate')]
  try {
    execFileSync(
      'openssl',
      [
        ...'req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30'.split(' '),
        ...['-subj', `/CN=${name}`, '-addext', `subjectAltName=DNS:${name}`],
        ...['-keyout', key, '-out', certificate],
      ],
      { stdio: 'ignore' },
    )
    return {
      certificatePem: readFileSync(certificate, 'utf8'),
      keyPem: readFileSync(key, 'utf8'),
    }
  } finally {
    rmSync(directory, { recursive: true })
  }
}

const DAY_MS = 86_400_000
const hostname = 'mail.example.org'
const inDays = (days: number): Date => new Date(Date.now() + days * DAY_MS)
const problems = (pair: Pair, now: Date, host = hostname): string[] =>
  checkCertificate({ ...pair, now, hostname: host }).map(
    ({ severity, what }) => `${severity}: ${what}`,
  )

test('a certificate is accepted, or each fault is named', () => {
  const pair = pairFor(hostname)
  assert.equal(problems(pair, new Date()), [])
  assert.match(problems(pair, inDays(31))[0] ?? '', /^error: expired on /)
  assert.match(problems(pair, inDays(-1))[0] ?? '', /^error: is not valid before /)
  assert.match(
    problems(pair, new Date(), 'other.test')[0] ?? '',
    /^warning: is not for other\.test/,
  )
  const { keyPem } = pairFor(hostname)
  assert.equal(problems({ ...pair, keyPem }, new Date()), [
    'error: does not belong to the certificate',
  ])
})

test('files that are no certificate and no key are named', () => {
  assert.equal(problems({ certificatePem: 'x', keyPem: 'y' }, new Date()), [
    'error: is not a certificate in PEM',
    'error: is not an unencrypted private key in PEM',
  ])
})

test.run()
