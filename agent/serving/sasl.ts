import { randomInt } from 'node:crypto'
import { createConnection } from 'node:net'
import { eachLine } from './lines.ts'

/** What Dovecot thinks of a login. `unavailable`: it could not tell, or the user may not be served at present. */
export type LoginVerdict = 'accepted' | 'wrong' | 'unavailable'

/** Longer than the oracle may take for an admission. */
const VERIFY_MS = 25_000

/** The verdict in a reply line to `AUTH`, or `undefined` for any other line. */
export function verdictFrom(line: string): LoginVerdict | undefined {
  const [command, , ...fields] = line.split('\t')
  if (command === 'OK') return 'accepted'
  if (command !== 'FAIL') return undefined
  const temporary = fields.some((field) => field === 'temp' || field === 'code=temp_fail')
  return temporary ? 'unavailable' : 'wrong'
}

/** The lines that ask whether a user has this password. A connection must have a process id of its own. */
export const saslRequest = (user: string, password: string, client: string, id: number): string => {
  const token = Buffer.from(`\0${user}\0${password}`).toString('base64')
  const fields = ['AUTH', '1', 'PLAIN', 'service=smtp', 'secured', 'nologin', `rip=${client}`]
  return `VERSION\t1\t1\nCPID\t${id}\n${[...fields, `resp=${token}`].join('\t')}\n`
}

/**
 * Asks Dovecot for its verdict on a login, over its socket for authentication clients
 * (https://doc.dovecot.org/2.3/developer_manual/design/auth_protocol/). One connection a login.
 */
export function verifyLogin(
  socketPath: string,
  login: { readonly user: string; readonly password: string; readonly client: string },
): Promise<LoginVerdict> {
  return new Promise((resolve) => {
    const socket = createConnection(socketPath)
    const settle = (verdict: LoginVerdict) => {
      socket.destroy()
      resolve(verdict)
    }
    socket.setTimeout(VERIFY_MS, () => settle('unavailable'))
    socket.on('error', () => settle('unavailable'))
    socket.on('close', () => settle('unavailable'))
    eachLine(socket, (line) => {
      if (line === 'DONE')
        socket.write(saslRequest(login.user, login.password, login.client, randomInt(1, 2 ** 31)))
      const verdict = verdictFrom(line)
      if (verdict !== undefined) settle(verdict)
    })
  })
}
