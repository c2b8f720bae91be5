import { execFile } from 'node:child_process'

/** A program and its arguments as data. Never a shell line. */
export type Command = {
  readonly program: string
  readonly args: readonly string[]
  readonly input?: string
}

/** Runs a command to its end and answers its stdout. @throws {CommandFailed} */
export type Run = (command: Command, options: { timeoutMs: number }) => Promise<string>

/** A command that could not start (no `exitCode`), ran too long, or said no. */
export class CommandFailed extends Error {
  override readonly name = 'CommandFailed'
  readonly command: Command
  readonly exitCode: number | undefined
  readonly stderr: string

  constructor(command: Command, exitCode: number | undefined, stderr: string, cause: unknown) {
    super(`${command.program} ${command.args.join(' ')}: ${stderr.trim() || exitCode}`, { cause })
    this.command = command
    this.exitCode = exitCode
    this.stderr = stderr
  }
}

const OUTPUT_BYTES_MAX = 16 * 1024 * 1024

/** Runs a real program, with messages in English and bounded output. */
export const run: Run = (command, { timeoutMs }) =>
  new Promise((resolve, reject) => {
    const child = execFile(
      command.program,
      [...command.args],
      {
        timeout: timeoutMs,
        killSignal: 'SIGKILL',
        maxBuffer: OUTPUT_BYTES_MAX,
        env: { ...process.env, LC_ALL: 'C' },
      },
      (error, stdout, stderr) => {
        if (!error) return resolve(stdout)
        const exitCode = typeof error.code === 'number' ? error.code : undefined
        reject(new CommandFailed(command, exitCode, stderr, error))
      },
    )
    // A program may end before it has read its input; its exit code tells what matters.
    child.stdin?.on('error', () => {})
    child.stdin?.end(command.input)
  })

/** The same command, run inside a network namespace made by ip-netns(8). */
export const inNamespace = (namespace: string, command: Command): Command => ({
  ...command,
  program: 'nsenter',
  args: [`--net=/run/netns/${namespace}`, command.program, ...command.args],
})
