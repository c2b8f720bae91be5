import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { BROKER, HOSTNAME, PRODUCTION } from './plan.ts'
import { here } from './tools.ts'

export type CertificatePair = { readonly certificate: string; readonly key: string }
export type MailCertificates = { readonly ca: string; readonly production: CertificatePair }
export type NocCertificates = {
  readonly ca: string
  readonly broker: CertificatePair
  readonly appliance: CertificatePair
}

const VALID_DAYS = 30

const extensions = (lines: readonly string[]): string =>
  ['[req]', 'distinguished_name=dn', 'prompt=no', '[dn]', '[x]', ...lines, ''].join('\n')

const AUTHORITY = ['basicConstraints=critical,CA:TRUE', 'keyUsage=critical,keyCertSign,cRLSign']
const leaf = (usage: 'serverAuth' | 'clientAuth', names: readonly string[]): string[] => [
  'basicConstraints=critical,CA:FALSE',
  `extendedKeyUsage=${usage}`,
  ...(names.length === 0 ? [] : [`subjectAltName=${names.join(',')}`]),
]

/** Production's certificate, from an authority made on the fly; users are given the authority as `ca`. */
export async function makeMailCertificates(directory: string): Promise<MailCertificates> {
  const authority = await makeAuthority(directory, 'Understudy Lab Authority')
  const names = [`DNS:${HOSTNAME}`, `IP:${PRODUCTION.ipv4}`, `IP:${PRODUCTION.ipv6}`]
  const production = await sign(directory, 'production', HOSTNAME, leaf('serverAuth', names))
  await appendChain(production.certificate, authority)
  return { ca: authority, production }
}

/** The operations centre's own authority, its broker's certificate and the appliance's client certificate. */
export async function makeNocCertificates(
  directory: string,
  applianceId: string,
): Promise<NocCertificates> {
  const ca = await makeAuthority(directory, 'Understudy Lab Operations Centre')
  const broker = await sign(
    directory,
    'broker',
    'broker',
    leaf('serverAuth', [`IP:${BROKER.ipv4}`]),
  )
  const appliance = await sign(directory, 'appliance', applianceId, leaf('clientAuth', []))
  return { ca, broker, appliance }
}

async function makeAuthority(directory: string, name: string): Promise<string> {
  await mkdir(directory, { recursive: true })
  return (await request(directory, 'ca', name, AUTHORITY, [])).certificate
}

const sign = (
  directory: string,
  file: string,
  name: string,
  lines: readonly string[],
): Promise<CertificatePair> => {
  const authority = ['-CA', join(directory, 'ca.pem'), '-CAkey', join(directory, 'ca.key')]
  return request(directory, file, name, lines, authority)
}

async function request(
  directory: string,
  file: string,
  name: string,
  lines: readonly string[],
  authority: readonly string[],
): Promise<CertificatePair> {
  const at = (suffix: string) => join(directory, `${file}.${suffix}`)
  await writeFile(at('cnf'), extensions(lines))
  const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes']
  const subject = ['-config', at('cnf'), '-extensions', 'x', '-subj', `/CN=${name}`]
  const files = ['-keyout', at('key'), '-out', at('pem'), '-days', String(VALID_DAYS)]
  await here('openssl', ['req', '-x509', ...newKey, ...subject, ...authority, ...files])
  return { certificate: at('pem'), key: at('key') }
}

async function appendChain(certificate: string, authority: string): Promise<void> {
  const chain = [await readFile(certificate, 'utf8'), await readFile(authority, 'utf8')]
  await writeFile(certificate, chain.join(''))
}
