"""A headless Chromium that opens a file and tells what happened there, over a pipe of the DevTools protocol."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

#: As distributions name it; CPTSEL_BROWSER names another.
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
WAIT = 60.0  # seconds for an answer


def browser() -> str | None:
    """Path of a browser; None where there is none."""
    named = os.environ.get("CPTSEL_BROWSER")
    return shutil.which(named) if named else next(filter(None, map(shutil.which, NAMES)), None)


class Chromium:
    """A browser with one page. Every message of it since ``open`` stands in ``events``."""

    def __init__(self, path: str, profile: Path) -> None:
        """Start it.

        Args:
            path: of its program.
            profile: folder for what it keeps.
        """
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        options = ["--headless=new", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage", "--no-sandbox"]
        options += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
        options += [f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"]
        # The protocol takes its commands from descriptor 3 and answers on 4.
        script = f'exec 3<&{theirs_in} 4>&{theirs_out}; exec "$@"'
        self._process = subprocess.Popen(
            ["bash", "-c", script, "browser", path, *options],
            pass_fds=(theirs_in, theirs_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._out, self._in = ours_out, ours_in
        os.set_blocking(self._in, False)
        self._left, self._number = b"", 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """What a command answers."""
        self._number += 1
        session = {} if self._session is None else {"sessionId": self._session}
        command = {"id": self._number, "method": method, "params": parameters, **session}
        os.write(self._out, json.dumps(command).encode() + b"\0")
        while (message := self._next()).get("id") != self._number:
            self.events.append(message)
        assert "error" not in message, message
        return message["result"]

    def _next(self) -> dict[str, Any]:
        """The next message."""
        until = time.monotonic() + WAIT
        while b"\0" not in self._left:
            assert self._process.poll() is None, "the browser has ended"
            assert time.monotonic() < until, "the browser does not answer"
            try:
                self._left += os.read(self._in, 1 << 20)
            except BlockingIOError:
                time.sleep(0.01)
        data, _, self._left = self._left.partition(b"\0")
        return json.loads(data)

    def open(self, path: Path, width: int, height: int, dark: bool) -> None:
        """Open a file in a window of so many pixels, as a person has it who likes it dark or light."""
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=scheme)
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.call("Page.navigate", url="about:blank")
        self.until("document.readyState === 'complete'")
        self.events.clear()
        self.call("Page.navigate", url=path.as_uri())
        self.until(f"location.href === {json.dumps(path.as_uri())} && document.readyState === 'complete'")

    def value(self, expression: str) -> Any:
        """What an expression of JavaScript is, as JSON has it."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, expression: str) -> None:
        """Wait until an expression is true."""
        until = time.monotonic() + WAIT
        while not self.value(expression):
            assert time.monotonic() < until, f"still not: {expression}"
            time.sleep(0.05)

    def complaints(self) -> list[str]:
        """Errors and warnings of scripts, of the console, and of the content security policy."""
        found = []
        for event in self.events:
            parameters = event.get("params", {})
            if event.get("method") == "Runtime.exceptionThrown":
                found.append(str(parameters["exceptionDetails"]))
            elif event.get("method") == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning"):
                found.append(str(parameters["args"]))
            elif event.get("method") == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
                found.append(parameters["entry"]["text"])
        return found

    def requests(self) -> list[str]:
        """All that was asked for, but what a page has inside."""
        asked = [e["params"]["request"]["url"] for e in self.events if e.get("method") == "Network.requestWillBeSent"]
        return [url for url in asked if not url.startswith(("data:", "blob:", "about:"))]

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(WAIT)
        os.close(self._out)
        os.close(self._in)
