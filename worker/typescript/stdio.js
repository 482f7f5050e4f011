// Stdin and stdout of a worker, moved out of the agent's reach.
//
// # Theory of operation
//
// JavaScript has no dup2, but Linux reopens a pipe by its name: opening /proc/self/fd/1 yields a
// descriptor of its own for the same pipe, above 2, close-on-exec and with flags of its own. Then 0
// and 1 are closed, and the next two files that are opened get these numbers: /dev/null, and a copy
// of 2. From then on whatever the agent, native code or a child process prints is log.
//
// A socket cannot be reopened in this way, and Deno's node:fs numbers its files by itself. There
// `process.stdout` and `console` write to stderr instead, and a child process that inherits
// descriptor 1 still writes to the wire. The command `agent-worker` of the Python package moves the
// wire before it starts the runtime, so that all of this holds everywhere.

import { Console } from "node:console";
import fs from "node:fs";

// `process` is the global everywhere in this package: importing node:process makes all three standard
// streams at once, which costs a tenth of a start.

const { O_RDONLY } = fs.constants;

/** A file that is opened again would be written from its beginning; pipes do not care. */
const APPEND = fs.constants.O_WRONLY | fs.constants.O_APPEND;

/**
 * The two descriptors of the wire.
 *
 * @typedef {{input: number, output: number}} Wire
 */

/**
 * Move the wire away from descriptors 0 and 1. Throws when stdin or stdout is closed.
 *
 * @returns {Wire}
 */
export function takeStdio() {
  const wire = { input: reopened(0, O_RDONLY), output: reopened(1, APPEND) };
  if (wire.input > 2 && wire.output > 2 && replaceStdio()) return wire;
  printToStderr();
  return wire;
}

/**
 * The wire that the parent process has moved already, to these descriptors.
 *
 * @param {Wire} moved
 * @returns {Wire}
 */
export function adopt({ input, output }) {
  return { input: taken(input, O_RDONLY), output: taken(output, APPEND) };
}

/** @param {number} fd @param {number} flags */
function taken(fd, flags) {
  const copy = reopened(fd, flags);
  // The copy is not inherited by the agent's own child processes, the original might be.
  if (copy !== fd) close(fd);
  return copy;
}

/** @param {number} fd @param {number} flags @returns {number} `fd` itself where it cannot be reopened */
function reopened(fd, flags) {
  try {
    return fs.openSync(`/proc/self/fd/${fd}`, flags);
  } catch {
    fs.fstatSync(fd); // throws for a descriptor that is closed
    return fd;
  }
}

/** @returns {boolean} whether descriptors 0 and 1 are harmless now */
function replaceStdio() {
  if ("Deno" in globalThis) return false;
  fs.closeSync(0);
  fs.openSync("/dev/null", O_RDONLY);
  fs.closeSync(1);
  try {
    fs.openSync("/proc/self/fd/2", APPEND);
    appendToLogFile();
    return true;
  } catch {
    // stderr is a socket, or closed
    fs.openSync("/dev/null", APPEND);
    return false;
  }
}

/** Two descriptors that were opened apart write over each other in a file, unless both append. */
function appendToLogFile() {
  if (!fs.fstatSync(2).isFile()) return;
  fs.closeSync(2);
  fs.openSync("/proc/self/fd/1", APPEND);
}

function printToStderr() {
  process.stdout.write = process.stderr.write.bind(process.stderr);
  const { log, info, debug, table, dir, group, groupEnd, timeEnd, timeLog, count } = new Console({
    stdout: process.stderr,
    stderr: process.stderr,
  });
  Object.assign(console, {
    log,
    info,
    debug,
    table,
    dir,
    group,
    groupEnd,
    timeEnd,
    timeLog,
    count,
  });
}

/** @param {number} fd */
function close(fd) {
  try {
    fs.closeSync(fd);
  } catch {
    // Deno cannot close a descriptor that it did not open.
  }
}
