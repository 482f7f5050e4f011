"""Answers under an id that it was never given, as if for a request at another worker."""

import wire


def answer_another(request: wire.Request) -> None:
    wire.write(wire.answer({**request, "id": request["id"] + 1_000}))


wire.serve(answer_another)
