"""A headless Chromium that does what a person does: looks, clicks, presses keys, turns a phone.

It is told so over a pair of pipes (`--remote-debugging-pipe`): messages of its DevTools protocol as JSON, each ended by a
zero byte. So nothing listens, and nothing but the browser is needed.
"""

import base64
import contextlib
import fcntl
import itertools
import json
import os
import pathlib
import select
import shutil
import subprocess
import time

from server import wait_until

BROWSER = shutil.which("chromium")
# Without the last ones it looks for hosts of its maker's.
OPTIONS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]
ANSWER_DEADLINE_S = 60
KEYS = {"Tab": 9, "Enter": 13, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
# What may be clicked: by selector, and by its whole text where that is given.
FIND = """(selector, text) => {
  const found = [...document.querySelectorAll(selector)].filter(one => text === null || one.textContent === text);
  if (found.length !== 1) throw new Error(`${found.length} of ${selector} ${text}`);
  return found[0];
}"""
# The middle of it once it is in view, if it is what a pointer there would hit.
AIM = """one => {
  one.scrollIntoView({ block: "center" });
  const box = one.getBoundingClientRect(), x = box.x + box.width / 2, y = box.y + box.height / 2;
  if (!one.contains(document.elementFromPoint(x, y))) throw new Error("something lies over it");
  return { x, y };
}"""


class Page:
    """One page in a browser of its own."""

    def __init__(self, url, profile, width=1280, height=1500):
        self.numbers = itertools.count(1)
        self.pending = b""
        self.session = None
        self.asked_for, self.complaints = [], []
        from_us, self.requests = os.pipe()
        self.answers, to_us = os.pipe()
        # It reads from 3 and writes to 4, where a shell puts them; from out of its way, lest one overwrites the other.
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (from_us, to_us)]
        command = ["bash", "-c", f'exec "$@" 3<&{ends[0]} 4>&{ends[1]}', "bash", BROWSER, *OPTIONS,
                   f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"]
        self.log_path = pathlib.Path(f"{profile}.log")
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=ends)
        for end in [from_us, to_us, *ends]:
            os.close(end)
        pages = wait_until(
            lambda: [one for one in self.tell("Target.getTargets")["targetInfos"] if one["type"] == "page"],
            "the browser has a page")
        self.session = self.tell("Target.attachToTarget", targetId=pages[0]["targetId"], flatten=True)["sessionId"]
        for domain in ["Page", "Runtime", "Network", "Log"]:
            self.tell(f"{domain}.enable")
        self.resize(width, height)
        self.tell("Page.navigate", url=url)

    def close(self):
        with contextlib.suppress(BrokenPipeError):
            os.write(self.requests, json.dumps({"id": 0, "method": "Browser.close"}).encode() + b"\0")
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.requests)
        os.close(self.answers)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # -- the protocol

    def _post(self, method, parameters):
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.requests, json.dumps(message).encode() + b"\0")
        return number

    def tell(self, method, **parameters):
        number = self._post(method, parameters)
        while (answer := self._next_message()).get("id") != number:
            self._note(answer)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def _next_message(self):
        end = time.monotonic() + ANSWER_DEADLINE_S
        while b"\0" not in self.pending:
            ready, _, _ = select.select([self.answers], [], [], max(0, end - time.monotonic()))
            piece = os.read(self.answers, 1 << 20) if ready else b""
            assert piece, f"the browser says nothing\n{self.log_path.read_text(errors='replace')}"
            self.pending += piece
        message, _, self.pending = self.pending.partition(b"\0")
        return json.loads(message)

    def _note(self, event):
        """What happened meanwhile: whom the page asked, and what went wrong in it."""
        said = event.get("params", {})
        match event.get("method"):
            case "Network.requestWillBeSent":
                self.asked_for.append(said["request"]["url"])
            case "Runtime.exceptionThrown":
                self.complaints.append(said["exceptionDetails"])
            case "Runtime.consoleAPICalled" | "Log.entryAdded":
                self.complaints.append(said)
            case "Page.javascriptDialogOpening":
                self.complaints.append(said)
                # Nothing else goes on meanwhile.
                self._post("Page.handleJavaScriptDialog", {"accept": False})

    def run(self, script):
        """The value of an expression in the page."""
        done = self.tell("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, f"{script}: {done['exceptionDetails']}"
        return done["result"].get("value")

    # -- what a person does

    def text(self, selector="body"):
        """What stands there for the eye: nothing that is hidden."""
        return self.run(f"(one => one?.checkVisibility() ? one.innerText : '')(document.querySelector({json.dumps(selector)}))")

    def sees(self, text, selector="body"):
        """Waits for text to stand somewhere."""
        try:
            wait_until(lambda: text in self.text(selector), f"{text!r} stands in {selector}")
        except AssertionError as late:
            raise AssertionError(f"{late}, but:\n{self.text(selector)}") from None

    def click(self, selector, text=None):
        spot = self.run(f"({AIM})(({FIND})({json.dumps(selector)}, {json.dumps(text)}))")
        for kind in ["mousePressed", "mouseReleased"]:
            self.tell("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **spot)

    def press(self, key):
        more = {"text": "\r"} if key == "Enter" else {}
        for kind in ["keyDown", "keyUp"]:
            self.tell("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=KEYS[key],
                      **(more if kind == "keyDown" else {}))

    def focused(self):
        """The text of what the next key goes to."""
        return self.run("document.activeElement.textContent")

    def resize(self, width, height, phone=False):
        self.tell("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)

    def screenshot(self, path):
        """Of the whole page, however long."""
        picture = self.tell("Page.captureScreenshot", captureBeyondViewport=True)
        pathlib.Path(path).write_bytes(base64.b64decode(picture["data"]))
