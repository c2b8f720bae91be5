import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { NocCertificates } from './certificates.ts'
import { startDaemon } from './daemon.ts'
import { BROKER, namespaceOf } from './plan.ts'

/** The operations centre's broker (mosquitto.conf(5)): TLS only, and only for those with a certificate of its own authority. */
const brokerConf = ({ ca, broker }: NocCertificates): string => `
listener ${BROKER.port} ${BROKER.ipv4}
cafile ${ca}
certfile ${broker.certificate}
keyfile ${broker.key}
require_certificate true
use_identity_as_username true
allow_anonymous false
persistence false
user root
`

/** Starts Mosquitto among the users. Answers its process id. */
export async function startBroker(
  prefix: string,
  directory: string,
  certificates: NocCertificates,
): Promise<number> {
  const conf = join(directory, 'broker.conf')
  await writeFile(conf, brokerConf(certificates))
  const log = join(directory, 'broker.log')
  return startDaemon(namespaceOf(prefix, 'users'), 'mosquitto', ['-c', conf], { log })
}
