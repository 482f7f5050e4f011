"""Anthropic's Messages API for the agents of a gateway: `/v1/messages`, `/v1/models`.

The README beside this file says what is mapped, passed on, ignored and refused. `dialect` puts the
parts together. `request` reads bodies, with `parameters`, `conversation`, `blocks` and `tools`;
`message` and `stream` tell what an agent says as content blocks and as events, with `outcomes` and
what all `chats` have; `errors` writes errors, and `models` lists the agents.
"""
