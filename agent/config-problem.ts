import * as v from 'valibot'

/** What is wrong with a settings file, a line a problem: the setting's name, what is wrong there, and what to do. */
export const problemLines = (issues: readonly v.BaseIssue<unknown>[]): readonly string[] =>
  issues.flatMap((issue) => linesOf(issue, ''))

function linesOf(issue: v.BaseIssue<unknown>, below: string): readonly string[] {
  const where = [below, v.getDotPath(issue)].filter(Boolean).join('.')
  // Of several allowed shapes, the one that was evidently meant says what is wrong inside it.
  const inside =
    issue.type === 'union' ? issue.issues?.filter(({ path }) => path !== undefined) : []
  return inside !== undefined && inside.length > 0
    ? inside.flatMap((inner) => linesOf(inner, where))
    : [`${where === '' ? 'the settings' : where}: ${wordsFor(issue)}`]
}

function wordsFor({ kind, type, expected, received, message }: v.BaseIssue<unknown>): string {
  if (expected === 'never') return 'is no setting; remove it or correct its spelling'
  if (received === 'undefined') return 'is missing; add it'
  if (type === 'min_length') return 'needs at least one entry; add it'
  if (type === 'min_value' || type === 'max_value')
    return `must be ${bound(expected)}, not ${received}; correct it`
  if (type === 'integer') return `must be a whole number, not ${received}; correct it`
  if (kind === 'schema' && expected !== null)
    return `must be ${named(expected)}, not ${named(received)}; correct it`
  if (type === 'regex' && message.startsWith('Invalid'))
    return `must match ${expected}, and ${received} does not; correct it`
  return `${message}; correct it`
}

const bound = (expected: string | null): string =>
  (expected ?? '').replace('>=', 'at least ').replace('<=', 'at most ')

const NAMES: Readonly<Record<string, string>> = {
  string: 'a text',
  number: 'a number',
  boolean: 'true or false',
  Array: 'a list',
  Object: 'an object',
}

const named = (types: string): string =>
  types
    .replace(/^\((.*)\)$/, '$1')
    .split(' | ')
    .map((type) => NAMES[type] ?? type)
    .join(' or ')
