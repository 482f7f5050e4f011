"""A2A 1.0 for the agents of a gateway: `POST /a2a/{name}`, and cards that tell of them.

The README beside this file says what is mapped, passed on and refused. `dialect` puts the parts
together. `rpc` reads JSON-RPC, `sending` and `parts` make calls of messages, `answering` makes
calls of answers to an agent's questions; `task` is a task as it is kept, `telling` fills it with
what an agent says, and `listing` shows many. `card` writes cards, `errors` errors.
"""
