// Reading and writing the descriptors of the wire, as each runtime does it best.
//
// On Node a pipe is a net.Socket: it needs no thread, so that process.exit never waits for a read
// that blocks. Bun and Deno do not open a descriptor as a socket, and read it as a file.

import fs from "node:fs";
import net from "node:net";

const READ_BYTES = 64 * 1024; // the default capacity of a pipe (pipe(7))

const isNode = !("Bun" in globalThis || "Deno" in globalThis);

/**
 * Call `receive` with each piece read, and `end` at the end of the file, or when it cannot be read.
 *
 * @param {number} fd
 * @param {(data: Buffer) => void} receive
 * @param {() => void} end
 */
export function readFrom(fd, receive, end) {
  const stream = isPipe(fd)
    ? new net.Socket({ fd, readable: true, writable: false, allowHalfOpen: true })
    : fs.createReadStream("", { fd, highWaterMark: READ_BYTES, autoClose: false });
  stream.on("data", (/** @type {Buffer} */ data) => receive(data));
  stream.on("end", end);
  stream.on("error", end);
}

/**
 * A function that writes text, and calls back when it has left or cannot leave. It is called again
 * only after that.
 *
 * @param {number} fd
 * @returns {(text: string, done: (error?: Error | null) => void) => void}
 */
export function writerTo(fd) {
  if (!isPipe(fd)) return (text, done) => writeFile(fd, Buffer.from(text), done);
  const socket = new net.Socket({ fd, readable: false, writable: true });
  socket.on("error", () => {}); // each write is told
  return (text, done) => void socket.write(text, "utf8", done);
}

/** @param {number} fd @param {Buffer} data @param {(error?: Error | null) => void} done */
function writeFile(fd, data, done) {
  fs.write(fd, data, (error, written) => {
    if (error || written === data.length) done(error);
    else writeFile(fd, data.subarray(written), done);
  });
}

/** @param {number} fd */
function isPipe(fd) {
  if (!isNode) return false;
  const stat = fs.fstatSync(fd);
  return stat.isFIFO() || stat.isSocket();
}
