"""`agent-worker replay FILE... -- COMMAND`: ask a worker again what was recorded, and compare.

`recording` reads what a gateway has recorded with `--record DIR`, `player` starts a worker in any
language and asks it, `answer` is what came of a request, then and now, and `difference` compares
the two.
"""
