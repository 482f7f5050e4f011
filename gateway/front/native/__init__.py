"""The native dialect: the reference API, `POST /agent/{name}/invoke` and `/chat`.

`dialect` puts the parts together; `body` reads requests, `results` and `sse` write answers and
streams, `errors` writes errors, also those of requests that no dialect matches.
"""
