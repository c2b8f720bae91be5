/** A mailbox name as IMAP4rev1 writes it on the wire: modified UTF-7 (RFC 3501 §5.1.3). */
export const encodeMailbox = (name: string): string =>
  name.replace(/&|[^\x20-\x7e]+/g, (run) => (run === '&' ? '&-' : `&${base64Of(run)}-`))

const base64Of = (text: string): string =>
  Buffer.from(text, 'utf16le').swap16().toString('base64').replace(/=+$/, '').replaceAll('/', ',')

/** What people call a mailbox, from its name on the wire. */
export const decodeMailbox = (wire: string): string =>
  wire.replace(/&([^-]*)-/g, (_, run: string) =>
    run === '' ? '&' : Buffer.from(run.replaceAll(',', '/'), 'base64').swap16().toString('utf16le'),
  )
