"""Headless Chromium driven over its own debugging protocol: open a page, read it, click in it, keep a picture."""
import asyncio
import base64
import json
import shutil
import subprocess
import time
from pathlib import Path

import websockets

from harness import wait_for

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
         "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-proxy-server",
         "--window-size=1200,900", "--remote-debugging-port=0", "--remote-allow-origins=*"]


def program():
    # Ubuntu has it as a snap, which sees no folder of the tests.
    for name in ("chromium", "google-chrome"):
        if (found := shutil.which(name)) and Path(found).resolve().name != "snap":
            return found
    return None


class Browser:
    """One tab. Usable as a context manager; calls block."""

    def __init__(self, profile):
        self.profile = Path(profile)
        self.loop = asyncio.new_event_loop()
        self.count = 0
        self.socket = None
        self.process = subprocess.Popen([program(), *FLAGS, f"--user-data-dir={self.profile}", "about:blank"],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        port_file = self.profile / "DevToolsActivePort"
        wait_for("chromium to start", lambda: port_file.exists() and port_file.read_text().count("\n") >= 1, 60)
        port, path = port_file.read_text().split("\n")[:2]

        async def connect():
            return await websockets.connect(f"ws://127.0.0.1:{port}{path}", max_size=None, ping_interval=None)

        self.socket = self.loop.run_until_complete(connect())
        target = next(t for t in self._call("Target.getTargets")["targetInfos"] if t["type"] == "page")["targetId"]
        self.session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def _call(self, method, **params):
        self.count += 1
        message = {"id": self.count, "method": method, "params": params}
        if getattr(self, "session", None):
            message["sessionId"] = self.session

        async def talk():
            await self.socket.send(json.dumps(message))
            while True:
                answer = json.loads(await asyncio.wait_for(self.socket.recv(), 60))
                if answer.get("id") == message["id"]:
                    if "error" in answer:
                        raise AssertionError(f"{method}: {answer['error']}")
                    return answer["result"]

        return self.loop.run_until_complete(talk())

    def open(self, url):
        self._call("Page.navigate", url=url)

    def evaluate(self, expression):
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise AssertionError(f"{expression}: {answer['exceptionDetails'].get('exception', answer)}")
        return answer["result"].get("value")

    @property
    def text(self):
        return self.evaluate("document.body ? document.body.innerText : ''") or ""

    @property
    def url(self):
        return self.evaluate("location.href")

    def wait_text(self, words, timeout=60):
        try:
            return wait_for(f"{words!r} on the page", lambda: self.text if words in self.text else None, timeout, 0.2)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.url}:\n{self.text[:2000]}") from None

    def click(self, selector):
        """A real mouse click in the middle of the first element that matches, once it has come to rest: a page that is
        still drawing a chart above it moves it away from under the mouse."""
        seen = []

        def at_rest():
            seen.append(self.evaluate(
                "(() => { const e = document.querySelector(%s); if (!e) return null; e.scrollIntoView({block: 'center'});"
                "const r = e.getBoundingClientRect(), x = r.x + r.width / 2, y = r.y + r.height / 2;"
                "const top = document.elementFromPoint(x, y); return top && e.contains(top) ? [x, y] : null; })()"
                % json.dumps(selector)))
            return seen[-1] if len(seen) > 5 and all(place == seen[-1] for place in seen[-6:]) else None

        place = wait_for(f"{selector} at rest on the page", at_rest, 60, 0.2)
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)

    def screenshot(self, path):
        Path(path).write_bytes(base64.b64decode(self._call("Page.captureScreenshot")["data"]))

    def close(self):
        try:
            if self.socket:
                self.session = None
                self._call("Browser.close")
                self.loop.run_until_complete(asyncio.wait_for(self.socket.close(), 5))
        except Exception:  # it may be gone already
            pass
        deadline = time.monotonic() + 10
        while self.process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.loop.close()
