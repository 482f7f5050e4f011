"""Anthropic's Messages API for the agents of a gateway: `/v1/messages`, `/v1/models`.

The README beside this file says what is mapped, passed on, ignored and refused. `dialect` puts the
parts together. `request` reads bodies, with `parameters`, `conversation`, `blocks` and `tools`;
`answer` reads what an agent says into the content blocks of `message` or the events of `stream`,
with `outcomes`; `errors` writes errors, and `models` lists the agents.
"""
