"""A headless browser for tests of pages, and the explorer's server; without them tests are skipped with a reason."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@contextmanager
def browser(width: int = 1400, dark: bool = False) -> Iterator:
    """Open a window of this width that cannot reach anything outside this machine."""
    program, driver = next(filter(None, map(shutil.which, BROWSERS)), None), shutil.which("chromedriver")
    if not program or not driver:
        pytest.skip("no headless browser: install chromium and chromium-driver")
    selenium = pytest.importorskip(
        "selenium.webdriver", reason="selenium is not installed: pip install 'openjepa[dev]'"
    )
    options = selenium.ChromeOptions()
    options.binary_location = program
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        f"--window-size={width},900",
        "--disable-dev-shm-usage",
    ):
        options.add_argument(flag)
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE localhost , EXCLUDE 127.0.0.1")
    if dark:
        options.add_argument("--blink-settings=preferredColorScheme=0")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    window = selenium.Chrome(options=options, service=selenium.ChromeService(driver))
    try:
        yield window
    finally:
        window.quit()


@contextmanager
def serve_explorer(run: Path, folder: Path) -> Iterator[str]:
    """Serve `jepa explore` of a run, as a user would, and return its address; what it prints goes to a file."""
    pytest.importorskip("nicegui", reason="nicegui is not installed: pip install 'openjepa[explore]'")
    with socket.create_server(("127.0.0.1", 0)) as spare:
        port = spare.getsockname()[1]
    command = f"-m openjepa explore {run} --count 40 --map 20 --port {port}".split()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("NICEGUI", "PYTEST"))}
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(
            [sys.executable, *command], stdout=said, stderr=said, env=environment, start_new_session=True
        )
    try:
        for _ in range(300):
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, (folder / "said").read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
