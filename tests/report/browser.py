"""A page in headless Chromium, over the DevTools protocol on pipes: no package is needed for it."""

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from base64 import b64decode
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "headless_shell")
SECONDS = 30
# Chromium reads commands from descriptor 3 and answers on 4.
_ON_PIPES = """
import fcntl, os, sys
read, write, *command = sys.argv[1:]
read, write = (fcntl.fcntl(int(of), fcntl.F_DUPFD, 10) for of in (read, write))
os.dup2(read, 3)
os.dup2(write, 4)
os.execv(command[0], command)
"""


def chromium():
    """The browser's path, None where there is none; VKFUSE_CHROMIUM names another."""
    return os.environ.get("VKFUSE_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """A page: what it evaluates to, what it complained of, what it asked the network for."""

    def __init__(self, write, read):
        self._write, self._read, self._buffer = write, read, b""
        self._ids = itertools.count(1)
        self._session = None
        self.complaints, self.requests = [], []

    def call(self, method, **params):
        """Send a command, and give its result; events that come first are kept."""
        number = next(self._ids)
        message = {"id": number, "method": method, "params": params}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._message()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]
            self._event(answer)

    def open(self, path):
        """Load a file in a new page."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Page.navigate", url=Path(path).as_uri())
        for _ in range(SECONDS * 20):
            if self.run("document.readyState === 'complete' && location.protocol === 'file:'"):
                return
            time.sleep(0.05)
        raise TimeoutError(path)

    def run(self, expression):
        """The value of a JavaScript expression."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def screenshot(self):
        """The page as PNG."""
        return b64decode(self.call("Page.captureScreenshot")["data"])

    def _message(self):
        while b"\0" not in self._buffer:
            data = os.read(self._read, 1 << 16)
            assert data, "the browser went away"
            self._buffer += data
        text, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(text)

    def _event(self, event):
        name, given = event.get("method"), event.get("params", {})
        if name in {"Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Page.javascriptDialogOpening"}:
            self.complaints.append(given)
        elif name == "Log.entryAdded":
            self.complaints.append(given["entry"]["text"])
        elif name == "Network.requestWillBeSent":
            self.requests.append(given["request"]["url"])


@contextlib.contextmanager
def browser(*, width=1280, height=900):
    """A page of a new browser."""
    ours, theirs = os.pipe(), os.pipe()  # read, write: to the browser, and from it
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [
            *(chromium(), "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"),
            *("--no-first-run", "--hide-scrollbars", f"--user-data-dir={profile}"),
            f"--window-size={width},{height}",
        ]
        running = subprocess.Popen(
            [sys.executable, "-c", _ON_PIPES, str(ours[0]), str(theirs[1]), *command],
            pass_fds=(ours[0], theirs[1]),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(ours[0])
        os.close(theirs[1])
        try:
            yield Page(ours[1], theirs[0])
        finally:
            running.kill()
            running.wait()
            os.close(ours[1])
            os.close(theirs[0])
