/**
 * The words of Dovecot's dict protocol, version 2 (src/lib-dict/dict-client.h), as far as a passdb uses them.
 * A line is a command letter and fields that are joined by tabs; `\001` escapes what would break a line.
 */

const ESCAPES: Readonly<Record<string, string>> = {
  '\u0001': '\u00011',
  '\t': '\u0001t',
  '\r': '\u0001r',
  '\n': '\u0001n',
  '\0': '\u00010',
}
const UNESCAPES: Readonly<Record<string, string>> = {
  '1': '\u0001',
  t: '\t',
  r: '\r',
  n: '\n',
  '0': '\0',
}

// biome-ignore-start lint/suspicious/noControlCharactersInRegex: the protocol escapes them
/** One field, safe within a line. */
export const escaped = (field: string): string =>
  field.replace(/[\u0001\t\r\n\0]/g, (character) => ESCAPES[character] ?? character)

/** The field that `escaped` was made from. */
export const unescaped = (field: string): string =>
  field.replace(/\u0001(.?)/gs, (_, letter: string) => UNESCAPES[letter] ?? letter)
// biome-ignore-end lint/suspicious/noControlCharactersInRegex: the protocol escapes them

/** What the client wants. A line that a password lookup never needs is `unsupported`. */
export type Request =
  | { readonly name: 'hello' }
  | { readonly name: 'lookup'; readonly key: string }
  | { readonly name: 'unsupported'; readonly command: string }

export function requestFrom(line: string): Request {
  const command = line.slice(0, 1)
  if (command === 'H') return { name: 'hello' }
  const [key = ''] = line.slice(1).split('\t')
  if (command === 'L') return { name: 'lookup', key: unescaped(key) }
  return { name: 'unsupported', command }
}

/** The reply lines. `failed` makes Dovecot report a temporary failure, never a wrong password. */
export const reply = {
  found: (value: string): string => `O${escaped(value)}\n`,
  notFound: 'N\n',
  failed: (because: string): string => `F${escaped(because)}\n`,
} as const
