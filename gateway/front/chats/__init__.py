"""What dialects of chats have in common: a client that has tools asks, and an agent answers.

Of requests: `parameters` are the members of a body, `refusals` what cannot be honoured, `tools` the
client's tools, and `requests` makes a call of all of it. Of answers: `calls` are the tool calls of
one answer, `message` is an answer that came as one chat message, `endings` say how an answer ended,
`parts` what becomes of chunks and of files as text, `stream` is how a stream opens and ends, and
`answer` reads all that an agent says, for an answer that is told whole and for a stream alike. The
forms in which a client asks and is told are each dialect's own.
"""
