"""AG-UI 1.0. Its older client is the one that CopilotKit's runtime has within it."""

from __future__ import annotations

from tests.clients.row import Api, Client
from tests.clients.scenarios import asked_apart, attached, broke_off, showed_its_search

AG_UI = Api(
    "AG-UI",
    checks={
        "search": showed_its_search,
        "draw": attached,
        "ask": asked_apart,
        # Every answer is a stream.
        "mid-stream-error-answer-crash-later-of-fragile": broke_off,
    },
)

CLIENTS = (
    Client("@ag-ui/client", AG_UI, "with_ag_ui.mjs", "@ag-ui/client", way="current"),
    Client(
        "@ag-ui/client of CopilotKit", AG_UI, "with_ag_ui.mjs", "@ag-ui/client-0.0", way="before"
    ),
)
