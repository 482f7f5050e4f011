"""Answers with a result that has neither `output` nor `message`, but something else."""

import wire


def answer_wrongly(request: wire.Request) -> None:
    wire.write(wire.line(id=request["id"], result={"ouput": "misspelt"}))


wire.serve(answer_wrongly)
