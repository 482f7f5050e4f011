"""Pictures of the console, to be looked at: `python -m tests.http.console_pictures FOLDER [PART]`.

Every part, light, dark and as narrow as a telephone, with 1, 30 and 300 agents that do not exist;
or only the pictures whose names contain PART. Without a folder, the README's two are made anew.
"""

from __future__ import annotations

import base64
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, expect

from tests.browser import Tab, chromium
from tests.http.console_fake import FakeConsole, Fleet, fake_console

README = Path(__file__).parent / "pictures"
"""Where the README's are."""
WIDE, NARROW = (1280, 860), (390, 844)


def options(*, dark: bool, size: tuple[int, int]) -> dict[str, Any]:
    """A tab's: how wide the page is, and which colours its reader prefers."""
    return {
        "viewport": {"width": size[0], "height": size[1]},
        "color_scheme": "dark" if dark else "light",
        "is_mobile": size[0] < 500,
    }


def opened(
    browser: Browser, fake: FakeConsole, part: str, *, dark: bool, size: tuple[int, int]
) -> Tab:
    """A tab that shows a part, drawn to its end."""
    tab = Tab(browser, f"{fake.url}/console#/{part}", **options(dark=dark, size=size))
    expect(tab.page.locator("#link")).to_have_text("Live")
    tab.page.wait_for_timeout(600)
    return tab


def everything(folder: Path, only: str) -> None:
    with chromium() as browser:
        for count, workers in ((1, 12), (30, 8), (300, 40)):
            with fake_console(Fleet.of(count, workers)) as fake:
                parts = {"agents": "agents", "agent": f"agents/{fake.fleet.agents[0]['name']}"}
                if count == 30:
                    parts |= {"failing": f"agents/{fake.fleet.agents[6]['name']}"}
                    parts |= {"try": "try", "requests": "requests", "log": "log"}
                    parts |= {"request": "requests/r-1", "chat": "try?handler=chat"}
                for part, place in parts.items():
                    for name, dark, size in (
                        ("light", False, WIDE),
                        ("dark", True, WIDE),
                        ("narrow", True, NARROW),
                    ):
                        picture = f"{part}-{count}-{name}"
                        if only in picture:
                            tab = opened(browser, fake, place, dark=dark, size=size)
                            tab.page.screenshot(path=folder / f"{picture}.png")
                            for complaint in tab.complaints:
                                print(picture, complaint)
                            tab.page.close()


def for_the_readme() -> None:
    README.mkdir(exist_ok=True)
    with chromium() as browser, fake_console(Fleet.of(30, 14)) as fake:
        for name, dark in (("agents", False), ("requests", True)):
            tab = opened(browser, fake, name, dark=dark, size=(1280, 720))
            session = tab.page.context.new_cdp_session(tab.page)
            shot = session.send("Page.captureScreenshot", {"format": "webp", "quality": 80})
            (README / f"console-{name}.webp").write_bytes(base64.b64decode(shot["data"]))


if __name__ == "__main__":
    if len(sys.argv) == 1:
        for_the_readme()
    else:
        target = Path(sys.argv[1])
        target.mkdir(parents=True, exist_ok=True)
        everything(target, sys.argv[2] if len(sys.argv) > 2 else "")
