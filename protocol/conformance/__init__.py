"""The conformance suite of the wire: whether a worker, in whatever language, speaks the protocol.

    python -m protocol.conformance [--script] [--input JSON] -- COMMAND [ARGUMENT …]

The cases are data, one step on each line of the `.jsonl` files in this folder, so that a runner in
another language can use them, too (`cases` describes them). This runner starts COMMAND, writes what
the steps say and reads what comes. The gateway's own end of the connection judges whether a line is
legal, so that the suite and the gateway cannot differ.

Modules: `cases` reads the files, `process` runs the worker, `conversation` carries out steps and
finds what is wrong, `suite` decides which cases apply, `__main__` is the command.

Unlike the rest of `protocol`, this package does I/O: it is a program, which nothing else imports.
"""
