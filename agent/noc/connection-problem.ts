import type { Settings } from '../config.ts'
import type { Problem } from '../console/status.ts'

export type NocSettings = NonNullable<Settings['noc']>

type Remedy = Pick<Problem, 'what' | 'todo'> & { readonly setting: keyof NocSettings }

const untrusted: Remedy = {
  what: "the operations centre's certificate is not signed by the authority that we trust",
  setting: 'caFile',
  todo: 'Give the certificate of the authority that signed it',
}
const unnamed: Remedy = {
  what: "the operations centre's name is not known",
  setting: 'url',
  todo: 'Correct the name, or see why this network resolves no names',
}
const refusedUs: Remedy = {
  what: 'the operations centre does not accept our certificate',
  setting: 'certificateFile',
  todo: 'Give a certificate, valid today, that its authority signed for this appliance',
}
const unreadable: Remedy = {
  what: 'our certificate or its key is not in PEM, or the key is encrypted',
  setting: 'certificateFile',
  todo: 'Give both in PEM, the key without a password',
}
const silent: Remedy = {
  what: 'nobody answers there',
  setting: 'url',
  todo: 'See whether the broker runs and a firewall lets us through; telemetry waits meanwhile',
}

/** By the codes of Node's TLS and net errors, and of MQTT's CONNACK (MQTT 3.1.1 §3.2.2.3). */
const remedies: Readonly<Record<string, Remedy>> = {
  SELF_SIGNED_CERT_IN_CHAIN: untrusted,
  DEPTH_ZERO_SELF_SIGNED_CERT: untrusted,
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: untrusted,
  UNABLE_TO_GET_ISSUER_CERT: untrusted,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: untrusted,
  CERT_SIGNATURE_FAILURE: untrusted,
  CERT_HAS_EXPIRED: {
    what: "the operations centre's certificate has expired",
    setting: 'url',
    todo: 'Renew it there, or set the clock here',
  },
  CERT_NOT_YET_VALID: {
    what: "the operations centre's certificate is not valid yet",
    setting: 'url',
    todo: 'Set the clock here',
  },
  ERR_TLS_CERT_ALTNAME_INVALID: {
    what: "the operations centre's certificate is for another name",
    setting: 'url',
    todo: 'Use the name that stands in the certificate',
  },
  ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED: refusedUs,
  ERR_SSL_TLSV1_ALERT_UNKNOWN_CA: refusedUs,
  ERR_SSL_SSLV3_ALERT_HANDSHAKE_FAILURE: refusedUs,
  ERR_SSL_SSLV3_ALERT_CERTIFICATE_EXPIRED: refusedUs,
  ERR_SSL_SSLV3_ALERT_BAD_CERTIFICATE: refusedUs,
  ERR_SSL_TLSV1_ALERT_DECRYPT_ERROR: refusedUs,
  ERR_OSSL_X509_KEY_VALUES_MISMATCH: {
    what: 'the key does not belong to the certificate',
    setting: 'keyFile',
    todo: 'Give the key that the certificate was made for',
  },
  ERR_OSSL_PEM_NO_START_LINE: unreadable,
  ERR_OSSL_PEM_BAD_END_LINE: unreadable,
  ERR_OSSL_PEM_BAD_BASE64_DECODE: unreadable,
  ERR_OSSL_UNSUPPORTED: unreadable,
  ERR_OSSL_BAD_DECRYPT: unreadable,
  ERR_INVALID_URL: {
    what: 'that is no address',
    setting: 'url',
    todo: 'Write mqtts://name:port',
  },
  ENOTFOUND: unnamed,
  EAI_AGAIN: unnamed,
  ECONNREFUSED: silent,
  ETIMEDOUT: silent,
  EHOSTUNREACH: silent,
  ENETUNREACH: silent,
  4: refusedUs,
  5: {
    what: 'the operations centre does not authorise this appliance',
    setting: 'id',
    todo: 'Have it admitted there under this name, for the topics below understudy/',
  },
}

/** What a failed connection means to a person, and what to do. */
export function problemOf(error: unknown, noc: NocSettings): Problem {
  const code = error instanceof Error && 'code' in error ? String(error.code) : ''
  const { what, setting, todo } = remedies[code] ?? {
    what: `no telemetry: ${error instanceof Error ? error.message : String(error)}`,
    setting: 'url' as const,
    todo: 'See what the broker says of it; telemetry waits meanwhile',
  }
  return { what, where: `noc.${setting} (${noc[setting] ?? 'not given'})`, todo }
}
