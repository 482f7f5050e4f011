"""Clients that nobody here wrote, and what each gives of what an agent said.

To add the clients of a protocol, write two files, and change none:

- `runners/with_X.py` or `.mjs`: a program that does with one client what its orders say
  (`runners/__init__.py` has their form), with the order's `key` and for its `model`.
- `protocols/P.py`: `CLIENTS`, the rows of the table. Each is a `Client` with its `Api`, which says
  what the protocol lacks (a column, and the reason), and where an answer is told in another form
  than most have it (a check for that task).

`scenarios` are what everybody is asked, by way of `agents/told.py`, which does what it is told to,
or of a one-liner of jq's. The gateway has keys, and every dialect that there is (`clients.toml`).
`python -m tests.clients` prints the table, and `--only P` that of one protocol.
"""
