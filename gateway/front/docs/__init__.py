"""The API described for programs, `/openapi.json`, and for people, `/docs`.

`document` puts the whole together of what the dialects tell of themselves (`described`), of
`status`, and of the agents' own schemas (`embedding`); `routes` serves it, with the files of
`page/`. Imported only where `[server] docs` is on. The README beside this file is for users.
"""
