"""The native dialect: the reference API, `POST /agent/{name}/invoke` and `/chat`."""
