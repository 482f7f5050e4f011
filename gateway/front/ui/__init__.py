"""The AI SDK's UI message stream, version 1: `/ui/{name}`, for pages that use `useChat`.

The README beside this file says what is mapped, dropped and refused, and how a page is set up.
`dialect` puts the parts together. `request` reads bodies, with `messages`, `parts` and `files`;
`stream` writes answers, with `spoken`, `shown_calls` and `forms`; `resumable` knows which run a
chat's stream is; `errors` writes errors.
"""
