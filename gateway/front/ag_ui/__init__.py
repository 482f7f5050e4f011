"""AG-UI 1.0 for the agents of a gateway: `/ag-ui/{name}`.

The README beside this file says what is mapped, passed on, ignored and refused. `dialect` puts the
parts together. `run_input` reads bodies, with `messages` and `content`; `run_stream` writes the
events of a run, with `spoken` (text and reasoning), `shown_calls` (tool calls) and `forms` (what
else there is); `errors` writes errors.
"""
