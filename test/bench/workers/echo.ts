// Answers each byte with itself. Its argument is the port.
import { createServer } from 'node:net'

createServer({ noDelay: true }, (socket) => {
  socket.on('error', () => socket.destroy())
  socket.pipe(socket)
}).listen({ host: '::', port: Number(process.argv[2]) })
