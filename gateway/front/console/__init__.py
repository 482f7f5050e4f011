"""The console: what people see of a gateway in a browser. The README beside this file describes it.

`routes` serves the page and its API; `live` follows for one reader what `agents`, `requests` and
`lines` show, which keep as little as can be: of requests that have ended, `requests` and `series`
are told as observers, and everything else is read where it is when somebody looks. `watch` looks
once a second while anybody does, for all readers together. Imported only where the console is on.
"""
