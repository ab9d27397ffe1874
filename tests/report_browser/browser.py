"""Chromium without a window, driven by its DevTools protocol over two pipes: no driver, no port, no other package."""

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import time


class Browser:
    """A running Chromium with one page.

    Attributes
    ----------
    events : list of dict
        What the page reported, in order.
    """

    NAMES = ("chromium", "chromium-browser", "google-chrome")

    def __init__(self, profile):
        path = next((found for name in self.NAMES if (found := shutil.which(name))), None)
        assert path, f"none of {', '.join(self.NAMES)} is installed: apt-get install chromium"
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()

        def attach():  # Chromium reads commands from descriptor 3 and writes to descriptor 4
            spare = [os.dup(to_browser), os.dup(from_browser)]
            high = [os.dup2(one, place) for one, place in zip(spare, (100, 101), strict=True)]
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        flags = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run")
        self._process = subprocess.Popen(
            [path, *flags, "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"],
            preexec_fn=attach,
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._numbers = itertools.count(1)
        self._buffer = b""
        self.events = []
        self._session = None
        (page,) = (one for one in self.call("Target.getTargets")["targetInfos"] if one["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        """Return the result of a method of the protocol."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def _receive(self, timeout=60):
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], timeout)
            assert ready, "Chromium does not answer"
            data = os.read(self._read, 1 << 20)
            assert data, "Chromium has ended"
            self._buffer += data
        text, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(text)

    def open(self, path, *, width=1280, dark=False):
        """Open a file, in a window of this width."""
        self.events.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=path.resolve().as_uri())
        end = time.monotonic() + 60
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            assert time.monotonic() < end, "the page does not load"
            self.events.append(self._receive())

    def run(self, script):
        """Return the value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, key, code, text=None):
        """Press a key."""
        of_key = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", **of_key, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **of_key)

    def screenshot(self, path):
        """Write the whole page as a PNG."""
        self.run(
            "Promise.all([...document.images].map((i) => { i.loading = 'eager'; return i.decode(); })).then(() => 1)"
        )
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))

    def pdf(self, path):
        """Print the page."""
        data = self.call("Page.printToPDF", preferCSSPageSize=True, printBackground=False)["data"]
        path.write_bytes(base64.b64decode(data))

    def problems(self):
        """Return errors of the console, exceptions, and requests for anything but the file and what is in it."""
        found = []
        for event in self.events:
            method, of = event.get("method"), event.get("params", {})
            if method == "Network.requestWillBeSent":
                url = of["request"]["url"]
                if not url.startswith(("file:", "data:")):
                    found.append(url)
            elif method == "Runtime.exceptionThrown" or (
                method == "Runtime.consoleAPICalled" and of["type"] in ("error", "warning")
            ):
                found.append(of)
            elif method == "Log.entryAdded" and of["entry"]["level"] in ("error", "warning"):
                found.append(of["entry"])
        return found

    def close(self):
        """End the browser."""
        try:
            self._session = None
            self.call("Browser.close")
        finally:
            self._process.terminate()
            self._process.wait()
            os.close(self._write)
            os.close(self._read)
