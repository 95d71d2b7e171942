"""Headless Chromium, driven over a pipe by its own protocol: what a page does when a person opens it."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

#: Debian's, and what others call it.
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

#: Letters that stand out of the window, or have too little contrast with what is behind them.
LOOK = """
(() => {
  const width = document.documentElement.clientWidth, out = [], low = [];
  const rgb = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const over = (top, below) =>
    top.length < 4 ? top : top.slice(0, 3).map((v, i) => v * top[3] + below[i] * (1 - top[3]));
  const behind = node => {
    for (; node; node = node.parentElement) {
      const colour = rgb(getComputedStyle(node).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let text; (text = walk.nextNode());) {
    const node = text.parentElement;
    if (!text.data.trim() || ['STYLE', 'TITLE', 'title'].includes(node.tagName)) continue;
    const range = document.createRange();
    range.selectNodeContents(text);
    const box = range.getBoundingClientRect();
    if (!box.width) continue;
    const scrolls = node.closest('.scroll');
    if (!scrolls && (box.left < -1 || box.right > width + 1)) out.push(text.data);
    const style = getComputedStyle(node), svg = node instanceof SVGElement;
    const paper = behind(svg ? node.closest('svg.drawing').parentElement : node);
    const ink = over(rgb(svg ? style.fill : style.color), paper);
    const [a, b] = [light(ink), light(paper)].sort((x, y) => y - x);
    if ((a + .05) / (b + .05) < 4.5) low.push([text.data, ink, paper]);
  }
  return {out, low, wide: document.documentElement.scrollWidth - width};
})()
"""


@dataclass
class Seen:
    """What a page did while it was open."""

    messages: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    look: dict[str, Any] = field(default_factory=dict)


class Browser:
    """One process, one tab."""

    def __init__(self, program: str, profile: Path) -> None:
        to_it, self._out = os.pipe()
        self._in, from_it = os.pipe()
        flags = "--headless=new --no-sandbox --disable-gpu --hide-scrollbars --remote-debugging-pipe --no-first-run"
        more = "--disable-background-networking --disable-component-update --disable-extensions"
        command = [program, *flags.split(), *more.split(), f"--user-data-dir={profile}"]

        def given() -> None:  # the protocol's pipes are 3 and 4
            a, b = os.dup(to_it), os.dup(from_it)
            os.dup2(a, 3)
            os.dup2(b, 4)

        self._process = subprocess.Popen(
            command,
            close_fds=False,
            preexec_fn=given,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(to_it)
        os.close(from_it)
        self._rest, self._id, self._events = b"", 0, []
        target = self._ask("Target.createTarget", {"url": "about:blank"})["targetId"]
        flat = {"targetId": target, "flatten": True}
        self._session = self._ask("Target.attachToTarget", flat)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def close(self) -> None:
        """End the process and its children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._in)
        os.close(self._out)

    def ask(self, method: str, /, **params: Any) -> dict[str, Any]:
        """One command to the tab."""
        return self._ask(method, params, self._session)

    def evaluate(self, script: str) -> Any:
        """The value of an expression in the page."""
        return self.ask("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def open(self, path: Path, width: int = 1280, *, dark: bool = False) -> Seen:
        """Load a file, and look at it."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", media="", features=[scheme])
        self._events.clear()
        self.ask("Page.navigate", url=path.resolve().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            self._read()
        seen = Seen(look=self.evaluate(LOOK))
        for event in self._events:
            told = event.get("params", {})
            if event["method"] == "Network.requestWillBeSent":
                seen.requests.append(told["request"]["url"])
            elif event["method"] in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
                seen.messages.append(json.dumps(told))
        return seen

    def screenshot(self, path: Path, height: int | None = None) -> None:
        """The page as PNG, whole or its first `height` pixels."""
        size = self.ask("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": height or size["height"], "scale": 1}
        shot = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(shot["data"]))

    def printed(self, width: float, height: float) -> bytes:
        """The page as PDF; inches."""
        return base64.b64decode(self.ask("Page.printToPDF", paperWidth=width, paperHeight=height)["data"])

    def _ask(self, method: str, params: dict[str, Any], session: str | None = None) -> dict[str, Any]:
        self._id += 1
        message = {"id": self._id, "method": method, "params": params}
        os.write(self._out, json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        while True:
            answer = self._read()
            if answer is not None and answer.get("id") == self._id:
                assert "error" not in answer, answer
                return dict(answer["result"])

    def _read(self) -> dict[str, Any] | None:
        """The next message; events are kept."""
        while b"\0" not in self._rest:
            piece = os.read(self._in, 1 << 20)
            assert piece, "the browser has ended"
            self._rest += piece
        text, self._rest = self._rest.split(b"\0", 1)
        message = json.loads(text)
        if "method" in message:
            self._events.append(message)
            return None
        return dict(message)


def started(profile: Path) -> Browser:
    """The browser of this machine; the test is skipped where there is none."""
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium (.ci/run does)")
    return Browser(program, profile)
