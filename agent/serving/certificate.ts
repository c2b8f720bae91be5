import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto'

/** What is wrong with a certificate, where, and what to do; users would not notice a `warning` more than on production. */
export type CertificateProblem = {
  readonly what: string
  readonly where: string
  readonly todo: string
  readonly severity: 'error' | 'warning'
}

const CERTIFICATE = 'production.tls.certificateFile'
const KEY = 'production.tls.keyFile'

const parsed = <T>(parse: () => T): T | undefined => {
  try {
    return parse()
  } catch {
    // Whatever OpenSSL says of it, a person has to look at the file.
    return undefined
  }
}

const problem = (
  where: string,
  what: string,
  todo: string,
  severity: CertificateProblem['severity'] = 'error',
): CertificateProblem => ({ where, what, todo, severity })

/** Why users would not accept us with this certificate and key. An empty list means that they will. */
export function checkCertificate({
  certificatePem,
  keyPem,
  now,
  hostname,
}: {
  readonly certificatePem: string
  readonly keyPem: string
  readonly now: Date
  readonly hostname: string
}): CertificateProblem[] {
  const certificate = parsed(() => new X509Certificate(certificatePem))
  const key = parsed(() => createPrivateKey(keyPem))
  return [
    ...(certificate === undefined
      ? [problem(CERTIFICATE, 'is not a certificate in PEM', "Copy production's certificate chain")]
      : certificateProblems(certificate, now, hostname)),
    ...keyProblems(key, certificate),
  ]
}

function certificateProblems(
  certificate: X509Certificate,
  now: Date,
  hostname: string,
): CertificateProblem[] {
  const { validFromDate, validToDate } = certificate
  const problems: CertificateProblem[] = []
  if (now > validToDate)
    problems.push(
      problem(
        CERTIFICATE,
        `expired on ${validToDate.toISOString()}`,
        "Copy production's present certificate",
      ),
    )
  if (now < validFromDate)
    problems.push(
      problem(
        CERTIFICATE,
        `is not valid before ${validFromDate.toISOString()}`,
        "Check the appliance's date, or copy production's present certificate",
      ),
    )
  if (certificate.checkHost(hostname) === undefined)
    problems.push(
      problem(
        CERTIFICATE,
        `is not for ${hostname} (${certificate.subjectAltName ?? certificate.subject})`,
        'Check production.hostname, or copy the certificate that users see',
        'warning',
      ),
    )
  return problems
}

function keyProblems(
  key: KeyObject | undefined,
  certificate: X509Certificate | undefined,
): CertificateProblem[] {
  if (key === undefined)
    return [
      problem(KEY, 'is not an unencrypted private key in PEM', "Copy production's private key"),
    ]
  if (certificate !== undefined && !certificate.checkPrivateKey(key))
    return [
      problem(
        KEY,
        'does not belong to the certificate',
        'Copy key and certificate together; the own certificate must come first in its file',
      ),
    ]
  return []
}
