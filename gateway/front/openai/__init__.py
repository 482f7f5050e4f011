"""OpenAI's API for the agents of a gateway: `/v1/models`, `/v1/chat/completions`, `/v1/responses`.

The README beside this file says what is mapped, passed on, ignored and refused. `dialect` puts the
parts together. `chat_request` and `response_request` read bodies, with `items`, `tools`, `content`,
`parameters` and what all `chats` have; `completion` and `response` write answers and streams, with
`output` and `outcomes`; `memory` keeps what was said lately; `errors` writes errors.
"""
