// Stands for the services that the appliance must never touch: greets as an SSH server does, then answers each line.
import { createServer } from 'node:net'
import { PORTS } from './plan.ts'

const server = createServer((socket) => {
  socket.on('error', () => socket.destroy())
  socket.write('SSH-2.0-understudy-lab\r\n')
  socket.on('data', (line) => socket.write(`production heard ${line}`))
})
server.listen({ host: '::', port: PORTS.ssh }, () => process.stdout.write('listening\n'))
