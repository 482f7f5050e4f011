"""axe-core, asked about a page: rules for what can be perceived and used by everybody."""

from __future__ import annotations

from typing import Any

from tests.browser import Page
from tests.javascript import need_package

_RUN = """
    axe.run(RULES).then(({ violations }) =>
        violations.flatMap(({ id, nodes }) =>
            nodes.map(({ html, failureSummary }) => `${id} ${html} ${failureSummary}`)))
"""


def violations(page: Page, *, only_colours: bool = False) -> Any:
    """What axe-core finds wrong with what a page shows, in words."""
    page.evaluate((need_package("axe-core") / "axe.min.js").read_text())
    rules = '{ runOnly: ["color-contrast"] }' if only_colours else "{}"
    return page.evaluate(_RUN.replace("RULES", rules))


def in_both_schemes(page: Page) -> Any:
    """The same, in light and in dark; what is no matter of colours is the same in both."""
    found = {}
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        page.call("Emulation.setEmulatedMedia", features=features)
        # Colours change by a transition, of 120 ms, and axe reads what they are now.
        page.wait_for("document.getAnimations().length === 0")
        found[scheme] = violations(page, only_colours=scheme == "dark")
    return {scheme: words for scheme, words in found.items() if words}
