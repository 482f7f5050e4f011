"""axe-core, asked about a page: rules for what can be perceived and used by everybody."""

from __future__ import annotations

from typing import Any, Literal

from playwright.sync_api import Page

from tests.browser import Tab
from tests.javascript import need_package

_RUN = """
    (rules) => axe.run(rules).then(({ violations }) =>
        violations.flatMap(({ id, nodes }) =>
            nodes.map(({ html, failureSummary }) => `${id} ${html} ${failureSummary}`)))
"""


def violations(page: Page, *, only_colours: bool = False) -> Any:
    """What axe-core finds wrong with what a page shows, in words."""
    page.evaluate((need_package("axe-core") / "axe.min.js").read_text())
    return page.evaluate(_RUN, {"runOnly": ["color-contrast"]} if only_colours else {})


def in_both_schemes(tab: Tab) -> Any:
    """The same, in light and in dark; what is no matter of colours is the same in both."""
    found = {}
    schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    for scheme in schemes:
        tab.page.emulate_media(color_scheme=scheme)
        # Colours change by a transition, of 120 ms, and axe reads what they are now.
        tab.wait_for("document.getAnimations().length === 0")
        found[scheme] = violations(tab.page, only_colours=scheme == "dark")
    return {scheme: words for scheme, words in found.items() if words}
