"""What dialects of chats have in common: an agent's answer, read for a client that has tools.

`calls` are the tool calls of one answer, `message` is an answer that came as one chat message,
`endings` say how an answer ended, `parts` what becomes of chunks and of files as text. The forms in
which a client is told are each dialect's own.
"""
