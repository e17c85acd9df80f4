"""Debian's chromium without a window, driven by DevTools' protocol through a pipe: needs no package, no port."""

import base64
import json
import os
import shutil
import subprocess
import time

import pytest

FLAGS = (
    "--headless=new",
    "--no-sandbox",  # the tests may run as root
    "--remote-debugging-pipe",
    "--disable-gpu",
    "--disable-dev-shm-usage",  # it is small in containers
    "--no-first-run",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--hide-scrollbars",
)
KEYS = {"PageUp": 33, "PageDown": 34, "End": 35, "Home": 36, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39}
KEYS |= {"ArrowDown": 40, "Tab": 9, "Enter": 13}


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)")


class Browser:
    """A browser process; ``page`` opens a tab in it."""

    def __init__(self, folder, flags=()):
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        # The protocol's pipe is descriptors 3 and 4 of the browser.
        command = f'exec 3<&{to_browser} 4>&{from_browser}; exec "$@"'
        self._process = subprocess.Popen(
            ["bash", "-c", command, "bash", CHROMIUM, *FLAGS, *flags, f"--user-data-dir={folder}", "about:blank"],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._rest, self._number = b"", 0
        self.events = []

    def send(self, method, session=None, **parameters):
        """The result of a command of the protocol; events that come before it are kept in ``events``."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        self._put(message)
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self.events.append(answer)

    def _put(self, message):
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._write, data) :]

    def _next(self):
        while b"\0" not in self._rest:
            read = os.read(self._read, 1 << 20)
            assert read, "the browser has ended"
            self._rest += read
        message, self._rest = self._rest.split(b"\0", 1)
        return json.loads(message)

    def page(self, width=1280, height=800, **more):
        return Page(self, width, height, **more)

    def close(self):
        self.send("Browser.close")
        self._process.wait(timeout=20)
        os.close(self._read)
        os.close(self._write)


class Page:
    """A tab of so many CSS pixels; ``mobile``: with a touch screen."""

    def __init__(self, browser, width, height, mobile=False, scale=1):
        self.browser = browser
        target = browser.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = browser.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=mobile
        )
        if mobile:
            self.send("Emulation.setTouchEmulationEnabled", enabled=True)

    def send(self, method, **parameters):
        return self.browser.send(method, self.session, **parameters)

    def open(self, address, ready="true", seconds=30):
        """Go to an address and wait until an expression is true there."""
        self.send("Page.navigate", url=address)
        self.wait(ready, seconds)

    def wait(self, expression, seconds=30):
        end = time.monotonic() + seconds
        while not self.run(f"document.readyState != 'loading' && !!({expression})"):
            assert time.monotonic() < end, f"not within {seconds} s: {expression}; {self.complaints()}"
            time.sleep(0.02)

    def run(self, expression):
        """The value of a JavaScript expression, awaited where it is a promise."""
        done = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def key(self, key):
        code = KEYS.get(key, ord(key[0].upper()))
        common = {"key": key, "windowsVirtualKeyCode": code}
        text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
        self.send("Input.dispatchKeyEvent", type="keyDown", **common, **text)
        self.send("Input.dispatchKeyEvent", type="keyUp", **common)

    def mouse(self, kind, x, y, **more):
        self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def drag(self, start, end):
        """Press the left button at one point and release it at another (CSS pixels)."""
        self.mouse("mousePressed", *start, button="left", buttons=1, clickCount=1)
        self.mouse("mouseMoved", *end, button="left", buttons=1)
        self.mouse("mouseReleased", *end, button="left", clickCount=1)

    def screenshot(self, path):
        data = self.send("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(data))

    def _events(self, method):
        self.run("0")  # so that what has happened is read
        events = [e for e in self.browser.events if e.get("sessionId") == self.session and e["method"] == method]
        return [event["params"] for event in events]

    def requests(self):
        """Addresses that the page has asked for, in order."""
        return [event["request"]["url"] for event in self._events("Network.requestWillBeSent")]

    def complaints(self):
        """What the console holds of errors and warnings, exceptions that nobody caught among them."""
        thrown = [e["exceptionDetails"] for e in self._events("Runtime.exceptionThrown")]
        logged = [e["entry"]["text"] for e in self._events("Log.entryAdded") if e["entry"]["level"] != "info"]
        called = [e["args"] for e in self._events("Runtime.consoleAPICalled") if e["type"] in ("error", "warning")]
        return [*thrown, *logged, *called]
