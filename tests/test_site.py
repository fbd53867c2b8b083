"""The site: it builds without a warning, asks for nothing from elsewhere, reads easily, and its commands work."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from openjepa.cli.main import main
from openjepa.core.registry import PLUGINS
from openjepa.data.synthetic.moving_scenes import write_clips
from openjepa.data.wav_files import wav_content
from scripts import write_reference
from tests.clips import encode

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
HOW_TO = [DOCS / "start" / "ten-minutes.md", *sorted((DOCS / "how-to").glob("*.md"))]
EASY = [DOCS / "index.md", *HOW_TO]

MOST_WORDS, MOST_LINES = 40, 6  # of a sentence, of a paragraph


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """Build the site; a warning fails."""
    if importlib.util.find_spec("mkdocs") is None:
        pytest.skip("the extra openjepa[docs] is not installed")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return out


def test_every_page_is_in_the_site(site):
    pages = {file.relative_to(DOCS).with_suffix(".html") for file in DOCS.rglob("*.md")}
    assert len(pages) > 40 and pages <= {file.relative_to(site) for file in site.rglob("*.html")}


class Requests(HTMLParser):
    """Collect what a browser fetches by itself: scripts, styles, images, frames; not links."""

    def __init__(self, page: Path):
        super().__init__()
        self.fetched: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if tag == "link" and "canonical" not in (values.get("rel") or ""):
            self.fetched.append(values.get("href") or "")
        if tag in ("script", "img", "iframe", "source", "video"):
            self.fetched.append(values.get("src") or "")


def test_a_page_asks_for_nothing_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert any(Requests(page).fetched for page in pages)
    for page in pages:
        assert not [each for each in Requests(page).fetched if re.match(r"(https?:)?//", each)], page
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//", style.read_text(encoding="utf-8")), style


def test_the_reference_is_what_the_package_says(registered):
    PLUGINS.registered.clear()  # what tests of other modules have added
    for path, text in write_reference.pages().items():
        written = (write_reference.FOLDER / path).read_text(encoding="utf-8")
        assert written == text, f"{path} is old: type python -m scripts.write_reference"


def paragraphs(page: Path) -> list[str]:
    """Return the paragraphs and list items of a page, without headings, tables, code and images."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    parts = re.split(r"\n\s*\n|\n(?=[*-] )", text)
    return [part.strip() for part in parts if part.strip() and not re.match(r"\s*(#|\||!|<)", part)]


def sentences(paragraph: str) -> list[str]:
    return re.split(r"(?<=[.?!:])\s+", re.sub(r"\]\([^)]*\)", "]", paragraph))


@pytest.mark.parametrize("page", EASY, ids=lambda page: page.stem)
def test_pages_for_readers_in_a_hurry_have_short_sentences_and_paragraphs(page):
    for paragraph in paragraphs(page):
        assert len(paragraph.splitlines()) <= MOST_LINES, paragraph
        for sentence in sentences(paragraph):
            assert len(sentence.split()) <= MOST_WORDS, sentence


def test_long_sentences_are_noticed(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# Title\n\nShort. " + "word " * 41 + "end.\n\n```sh\n" + "code " * 50 + "\n```\n", encoding="utf-8"
    )
    (paragraph,) = paragraphs(page)
    assert max(len(sentence.split()) for sentence in sentences(paragraph)) == 42


SHORT = {
    "pretrain": "--steps 2 --batch-size 8 --workers 0 --no-report --device cpu --precision fp32 --threads 1",
    "probe": "--probes logistic --device cpu --precision fp32",
}

ELSEWHERE = ("jepa demo", "rooms/run", "jepa bench", "jepa suite")  # tests/test_world_commands.py and others run these


@pytest.fixture
def workshop(tmp_path, monkeypatch):
    """Write the folders that the pages name."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for folder in ("photos", "new", "labeled/cat", "labeled/dog", "pets/a", "pets/b", "flowers/a", "flowers/b"):
        Path(folder).mkdir(parents=True)
        for number in range(16):
            Pillow.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).save(Path(folder, f"{number}.png"))
    Pillow.fromarray(rng.integers(0, 255, (40, 32, 3), np.uint8)).save("photos/cat.jpg")
    write_scans(rng)
    write_clips(Path("clips"), 12, 8, 32, seed=0)
    for name in ("street", "moment"):
        Path(f"{name}.mp4").write_bytes(encode(count=75))
    write_recordings(rng)
    for folder in ("signals", "labeled-signals/a", "labeled-signals/b"):
        Path(folder).mkdir(parents=True)
        for number in range(12):
            np.save(Path(folder, f"{number}.npy"), rng.normal(size=(2, 256)).astype(np.float32))
    (encoder,) = re.findall(r"```python\n(.*?)```", (DOCS / "how-to" / "compare.md").read_text(), re.DOTALL)
    Path("my_encoders.py").write_text(encoder, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))


def write_scans(rng) -> None:
    """Write gray images of 16 bits, two of each patient, and a table of findings."""
    rows = ["file,finding,patient"]
    for folder, count in (("scans", 40), ("normal", 16)):
        Path(folder).mkdir()
        for number in range(count):
            name = f"patient_{number}.png"
            Pillow.fromarray(rng.integers(0, 4000, (64, 64)).astype(np.uint16)).save(Path(folder, name))
            rows += [f"{name},{'yes' if number % 2 else 'no'},{number // 4}"] if folder == "scans" else []
    Path("labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def write_recordings(rng) -> None:
    """Write short recordings."""
    for folder in ("recordings", "new"):
        Path(folder).mkdir(exist_ok=True)
    for number in range(18):
        tone = np.sin(2 * np.pi * (200 + 300 * (number % 2)) * np.arange(6000) / 8000) + 0.1 * rng.normal(size=6000)
        folder = "recordings" if number < 16 else "new"
        Path(folder, f"{number % 2}_anna_{number // 2}.wav").write_bytes(wav_content(0.4 * tone, 8000))


def commands(page: Path) -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def shorten(line: str) -> list[str]:
    """Return the words of a command with little to do."""
    words = shlex.split(line, comments=True)[1:]
    for flag in ("--budget", "--episodes"):
        if flag in words:
            position = words.index(flag)
            words = words[:position] + words[position + 2 :] + ([flag, "12"] if flag == "--episodes" else [])
    short = SHORT.get(words[0], "") if words[-1] != "--resume" else ""
    return [*words, *shlex.split(short.replace("--probes logistic", "") if "--probes" in words else short)]


@pytest.mark.slow
@pytest.mark.parametrize("page", HOW_TO, ids=lambda page: page.stem)
def test_the_commands_of_a_page_work(page, workshop, capsys):
    text = page.read_text(encoding="utf-8")
    for run in set(re.findall(r"runs/\w+", text)) - set(re.findall(r"--out (runs/\w+)", text)):
        assert main(["pretrain", "--data.root", "photos/", "--out", run, *shlex.split(SHORT["pretrain"])]) == 0
    for line in commands(page):
        if line.startswith("jepa") and not any(each in line for each in ELSEWHERE):
            assert main(shorten(line)) == 0, (line, capsys.readouterr().err[-1500:])
