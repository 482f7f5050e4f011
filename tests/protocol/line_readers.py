"""Readers of lines as the authors of agents take them, in many languages, and what ends a line for
each of them.

Each is a program of the real language that writes back every line that it reads, as `<line>`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.javascript import need_runtime

PATIENCE = 60
"""Seconds for a reader to start and end, and for its compiler before it; Java takes the longest."""

ALL_LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
"""What `str.splitlines` splits at, which is more than any other reader."""


class Reader(NamedTuple):
    """One way in which programs read lines."""

    ends: str
    """The characters that end a line of JSON, as far as such a text can hold them."""
    command: Callable[[Path], list[str]]
    """The command of the reader, which may be made in this folder. Skips where the language is not
    installed; in CI it has to be."""


def _installed(program: str, *words: str) -> Callable[[Path], list[str]]:
    def command(folder: Path) -> list[str]:
        del folder
        return [_need(program), *words]

    return command


def _need(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        assert not os.environ.get("CI"), f"CI must have {program}"
        pytest.skip(f"{program} is not installed")
    return path


def _python(code: str) -> Callable[[Path], list[str]]:
    tell = "import sys\ndef tell(line): sys.stdout.buffer.write(b'<%b>\\n' % line.encode())\n"
    return lambda _: [sys.executable, "-X", "utf8", "-c", tell + code]


_NODE = """
const lines = require('node:readline').createInterface({input: process.stdin, crlfDelay: Infinity});
lines.on('line', line => console.log(`<${line}>`));
"""


def _node(version: str) -> Callable[[Path], list[str]]:
    return lambda _: [need_runtime(version), "-e", _NODE]


_JAVA = """
import java.io.*;
import java.util.Scanner;
import static java.nio.charset.StandardCharsets.UTF_8;
public class Lines {
  public static void main(String[] words) throws IOException {
    var out = new PrintStream(System.out, true, UTF_8);
    if (words[0].equals("scanner")) {
      Scanner lines = new Scanner(System.in, UTF_8);
      while (lines.hasNextLine()) out.print("<" + lines.nextLine() + ">\\n");
    } else {
      var lines = new BufferedReader(new InputStreamReader(System.in, UTF_8));
      for (String line; (line = lines.readLine()) != null; ) out.print("<" + line + ">\\n");
    }
  }
}
"""

_CSHARP = """
using System;
using System.IO;
using System.Text;
static class Lines {
  static void Main(string[] words) {
    var utf8 = new UTF8Encoding(false);
    TextReader lines = new StreamReader(Console.OpenStandardInput(), utf8);
    if (words[0] == "console") { Console.SetIn(lines); lines = Console.In; }
    var output = new StreamWriter(Console.OpenStandardOutput(), utf8);
    for (string line; (line = lines.ReadLine()) != null; ) output.Write("<" + line + ">\\n");
    output.Flush();
  }
}
"""


def _java(reader: str) -> Callable[[Path], list[str]]:
    def command(folder: Path) -> list[str]:
        _need("javac")  # which runs a source, too
        source = folder / "Lines.java"
        source.write_text(_JAVA)
        return ["java", "-XX:TieredStopAtLevel=1", str(source), reader]

    return command


def _csharp(reader: str) -> Callable[[Path], list[str]]:
    """Of Mono, whose class library has .NET's own reader of lines."""

    def command(folder: Path) -> list[str]:
        _need("mono")
        source = folder / "Lines.cs"
        source.write_text(_CSHARP)
        subprocess.run([_need("mcs"), str(source)], cwd=folder, timeout=PATIENCE, check=True)
        return ["mono", str(folder / "Lines.exe"), reader]

    return command


READERS = {
    "python sys.stdin": Reader("\n", _python("for line in sys.stdin: tell(line[:-1])")),
    "python open(0)": Reader("\n\r", _python("for line in open(0): tell(line[:-1])")),
    "python splitlines": Reader(
        "\n\r\x85\u2028\u2029",
        _python("for line in sys.stdin.buffer.read().decode().splitlines(): tell(line)"),
    ),
    "node 22 readline": Reader("\n\r", _node("node22")),
    "node 24 readline": Reader("\n\r\u2028\u2029", _node("node24")),
    "java BufferedReader": Reader("\n\r", _java("reader")),
    "java Scanner": Reader("\n\r\x85\u2028\u2029", _java("scanner")),
    "csharp StreamReader": Reader("\n\r", _csharp("reader")),
    "csharp Console.In": Reader("\n\r", _csharp("console")),
    "perl": Reader("\n", _installed("perl", "-ne", 'chomp; print "<$_>\\n"')),
    "awk": Reader("\n", _installed("awk", '{ print "<" $0 ">" }')),
    "sed": Reader("\n", _installed("sed", "s/.*/<&>/")),
    "sh read": Reader(
        "\n", _installed("sh", "-c", "while IFS= read -r line; do printf '<%s>\\n' \"$line\"; done")
    ),
}


def lines_read(reader: str, data: bytes, folder: Path) -> list[bytes]:
    """The lines that the program of a reader gets when this is written to its stdin."""
    done = subprocess.run(
        READERS[reader].command(folder),
        input=data,
        cwd=folder,
        capture_output=True,
        timeout=PATIENCE,
        check=True,
    )
    assert done.stdout.startswith(b"<"), done.stderr
    assert done.stdout.endswith(b">\n"), done.stderr
    return done.stdout[1:-2].split(b">\n<")
