"""A headless Chromium: what a page looks like once its script, and one more, has run."""

from __future__ import annotations

import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest

_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--virtual-time-budget=2000",
]


def chromium() -> str:
    """The browser's path; skips the test where there is none."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("chromium is not installed (Debian: apt-get install chromium)")
    return path


def dom_after(page: str, script: str, folder: Path, size: tuple[int, int] = (1200, 900)) -> str:
    """The page's tree as HTML, after `script` has run in it."""
    path = folder / "page.html"
    path.write_text(page.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
    command = [
        chromium(),
        *_FLAGS,
        f"--user-data-dir={folder / 'browser'}",
        f"--window-size={size[0]},{size[1]}",
        "--dump-dom",
        path.as_uri(),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def result_of(page: str, script: str, folder: Path) -> str:
    """What the body of an async function gives, as text; the words of an exception if it raises one."""
    wrapped = (
        "(async () => { const said = document.createElement('pre'); said.id = 'said';"
        "window.onerror = (m) => { said.textContent = 'error: ' + m; };"
        f"try {{ said.textContent = JSON.stringify(await (async () => {{ {script} }})()); }}"
        "catch (e) { said.textContent = 'error: ' + e; } document.body.append(said); })()"
    )
    tree = dom_after(page, wrapped, folder)
    start = tree.index('<pre id="said">') + len('<pre id="said">')
    return unescape(tree[start : tree.index("</pre>", start)])
