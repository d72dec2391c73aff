"""Drives a headless Chromium over a pipe, with the DevTools protocol; no further package is needed.

One browser serves all pages of a test: it takes about a second to start.
"""

import base64
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium here: `apt-get install chromium`"
)
# Seconds after which a test gives up; a busy machine is slow.
PATIENCE = 20.0
KEYS = {
    "Enter": ("\r", 13),
    "Tab": ("", 9),
    "Escape": ("", 27),
    "Backspace": ("", 8),
    "ArrowDown": ("", 40),
    "ArrowUp": ("", 38),
    " ": (" ", 32),
}
SHIFT, CTRL = 8, 2


class Browser:
    """A running Chromium. Use `open_browser`."""

    def __init__(self, sent: int, received: int) -> None:
        self._sent = sent
        self._received = received
        self._numbers = itertools.count(1)
        self._changed = threading.Condition()
        self._answers: dict[int, dict[str, Any]] = {}
        self._pages: dict[str, Page] = {}
        self._ended = False
        threading.Thread(target=self._read, daemon=True).start()

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Run a command and return its result."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        os.write(self._sent, json.dumps(message).encode() + b"\0")
        with self._changed:
            found = self._changed.wait_for(lambda: self._ended or number in self._answers, PATIENCE)
            assert found, f"{method}: no answer within {PATIENCE} s"
            assert number in self._answers, f"{method}: the browser has ended"
            answer = self._answers.pop(number)
        assert "error" not in answer, f"{method}: {answer['error']}"
        result: dict[str, Any] = answer["result"]
        return result

    def page(self) -> "Page":
        """Open a tab with a profile of its own: nothing is stored from other tabs."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)
        session = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        page = self._pages[session["sessionId"]] = Page(self, session["sessionId"], context)
        for domain in ("Page", "Runtime", "Network", "Log"):
            page.call(f"{domain}.enable")
        # Every tab behaves as the one in front: its timers run, and its fields take the focus.
        page.call("Emulation.setFocusEmulationEnabled", enabled=True)
        return page

    def _read(self) -> None:
        kept = b""
        while chunk := os.read(self._received, 1 << 16):
            *messages, kept = (kept + chunk).split(b"\0")
            for message in map(json.loads, messages):
                with self._changed:
                    if "id" in message:
                        self._answers[message["id"]] = message
                    elif (page := self._pages.get(message.get("sessionId"))) is not None:
                        page.note(message["method"], message["params"])
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()


class Page:
    """A tab.

    Attributes:
        requests: the URLs that it has requested.
        problems: exceptions, errors of the console, and violations of the policy. A response with
            an error status is none.
    """

    def __init__(self, browser: Browser, session: str, context: str) -> None:
        self._browser = browser
        self._session = session
        self._context = context
        self.requests: list[str] = []
        self.problems: list[str] = []

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Run a command of the DevTools protocol in this tab."""
        return self._browser.call(method, self._session, **params)

    def note(self, method: str, params: dict[str, Any]) -> None:
        """Keep what an event says."""
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.problems.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in {"error", "assert"}:
            self.problems.append(str([one.get("value") for one in params["args"]]))
        elif method == "Log.entryAdded":
            entry = params["entry"]
            if entry["level"] == "error" and entry["source"] != "network":
                self.problems.append(entry["text"])

    def open(self, url: str) -> None:
        """Go to a URL, and wait until its scripts have run."""
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, script: str) -> Any:
        """Return the value of an expression; a promise is awaited."""
        found = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, script: str) -> Any:
        """Wait until an expression is true, and return its value."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            # A navigation destroys the context in which the expression runs.
            with contextlib.suppress(AssertionError):
                # An element has no value of JSON: it is an empty dict.
                if (found := self.run(script)) or found == {}:
                    return found
            time.sleep(0.03)
        raise AssertionError(
            f"not true within {PATIENCE} s: {script}\n{self.problems}\n"
            + str(self.run("document.body.innerText"))
        )

    def text(self, selector: str) -> str:
        """Return the text of the first element that matches, as it is shown."""
        return str(self.wait(f"document.querySelector({json.dumps(selector)})?.innerText"))

    def focus(self, selector: str) -> None:
        """Wait for an element and focus it."""
        self.wait(
            f"""(() => {{
                const one = document.querySelector({json.dumps(selector)});
                one?.focus();
                return one !== null && one === document.activeElement;
            }})()"""
        )

    def click(self, selector: str) -> None:
        """Click with the mouse on the middle of an element, which must be visible there."""
        place = self.wait(
            f"""(() => {{
                const one = document.querySelector({json.dumps(selector)});
                if (!one || one.disabled) return null;
                one.scrollIntoView({{block: "center", behavior: "instant"}});
                const box = one.getBoundingClientRect();
                const x = box.x + box.width / 2, y = box.y + box.height / 2;
                const top = document.elementFromPoint(x, y);
                return box.width && (one === top || one.contains(top)) ? [x, y] : null;
            }})()"""
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call(
                "Input.dispatchMouseEvent",
                type=kind,
                x=place[0],
                y=place[1],
                button="left",
                clickCount=1,
            )

    def press(self, key: str, modifiers: int = 0) -> None:
        """Press a key, such as `Tab`, `Enter` or `a`."""
        text, code = KEYS.get(key, (key, ord(key[0].upper())))
        common: dict[str, Any] = {
            "key": key,
            "windowsVirtualKeyCode": code,
            "modifiers": modifiers,
        }
        if text and not modifiers & CTRL:
            common["text"] = text
        self.call("Input.dispatchKeyEvent", type="keyDown", **common)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def type(self, text: str) -> None:
        """Insert text where the focus is."""
        self.call("Input.insertText", text=text)

    def fill(self, selector: str, text: str) -> None:
        """Replace the text of a field, as a user does."""
        self.focus(selector)
        self.press("a", CTRL)
        self.run("document.activeElement.select?.()")
        if text:
            self.type(text)
        else:
            self.press("Backspace")

    def choose_file(self, selector: str, path: Path) -> None:
        """Give a file to a field for files."""
        self.wait(f"document.querySelector({json.dumps(selector)})")
        document = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=document, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def download_to(self, folder: Path) -> None:
        """Let downloads of this tab go to a folder."""
        self._browser.call(
            "Browser.setDownloadBehavior",
            behavior="allow",
            browserContextId=self._context,
            downloadPath=str(folder),
        )

    def look(self, width: int, height: int, *, dark: bool = False) -> None:
        """Set the size of the window in pixels, and the colours that the user prefers."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = "dark" if dark else "light"
        self.call(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )

    def screenshot(self, path: Path) -> None:
        """Write what the window shows into a PNG."""
        shot = self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(shot["data"]))

    def too_wide(self) -> bool:
        """Whether the page must be scrolled to the side."""
        return bool(
            self.run("document.documentElement.scrollWidth > document.documentElement.clientWidth")
        )


@contextlib.contextmanager
def open_browser(profile: Path) -> Iterator[Browser]:
    """Start Chromium with an empty profile in a folder, and stop it at the end."""
    assert CHROMIUM is not None
    from_us, sent = os.pipe()
    received, to_us = os.pipe()
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--hide-scrollbars",
        "--no-first-run",
        "--remote-debugging-pipe",
        f"--user-data-dir={profile}",
        "about:blank",
    ]
    with (profile.parent / f"{profile.name}.log").open("wb") as log:
        # Chromium reads the protocol from its descriptor 3 and writes it to 4.
        process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{from_us} 4>&{to_us}', "browser", CHROMIUM, *options],
            pass_fds=(from_us, to_us),
            stdout=log,
            stderr=log,
        )
    os.close(from_us)
    os.close(to_us)
    try:
        yield Browser(sent, received)
    finally:
        os.close(sent)  # Chromium ends with its pipe
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        process.kill()
        process.wait()
