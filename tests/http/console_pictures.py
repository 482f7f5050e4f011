"""Pictures of the console, to be looked at: `python -m tests.http.console_pictures FOLDER [PART]`.

Every part, light, dark and as narrow as a telephone, with 1, 30 and 300 agents that do not exist;
or only the pictures whose names contain PART. Without a folder, the README's two are made anew.
"""

from __future__ import annotations

import base64
import sys
import tempfile
from pathlib import Path

from tests.browser import Browser, Page, browser
from tests.http.console_fake import FakeConsole, Fleet, fake_console

README = Path(__file__).parent / "pictures"
"""Where the README's are."""
WIDE, NARROW = (1280, 860), (390, 844)


def opened(
    chromium: Browser, fake: FakeConsole, part: str, *, dark: bool, size: tuple[int, int]
) -> Page:
    """A page that shows a part, drawn to its end."""
    page = chromium.open("about:blank")
    look(page, dark=dark, size=size)
    page.call("Page.navigate", url=f"{fake.url}/console#/{part}")
    page.wait_for("document.querySelector('#link').dataset.state === 'live'")
    page.evaluate("new Promise((done) => setTimeout(() => requestAnimationFrame(done), 400))")
    return page


def look(page: Page, *, dark: bool, size: tuple[int, int], scale: float = 1) -> None:
    """How wide the page is, and which colours its reader prefers."""
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    page.call("Emulation.setEmulatedMedia", features=[scheme])
    page.call(
        "Emulation.setDeviceMetricsOverride",
        width=size[0],
        height=size[1],
        deviceScaleFactor=scale,
        mobile=size[0] < 500,
    )


def everything(folder: Path, only: str) -> None:
    with tempfile.TemporaryDirectory() as profile, browser(Path(profile)) as chromium:
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
                            page = opened(chromium, fake, place, dark=dark, size=size)
                            page.screenshot(folder / f"{picture}.png")
                            for complaint in page.complaints:
                                print(picture, complaint)


def for_the_readme() -> None:
    README.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as profile,
        browser(Path(profile)) as chromium,
        fake_console(Fleet.of(30, 14)) as fake,
    ):
        for name, dark in (("agents", False), ("requests", True)):
            page = opened(chromium, fake, name, dark=dark, size=(1280, 720))
            shot = page.call("Page.captureScreenshot", format="webp", quality=80)
            (README / f"console-{name}.webp").write_bytes(base64.b64decode(shot["data"]))


if __name__ == "__main__":
    if len(sys.argv) == 1:
        for_the_readme()
    else:
        target = Path(sys.argv[1])
        target.mkdir(parents=True, exist_ok=True)
        everything(target, sys.argv[2] if len(sys.argv) > 2 else "")
