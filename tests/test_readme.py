"""The Python of README and of the pages on modalities runs as it stands, and the commands they name exist."""

import contextlib
import functools
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest

from openjepa.cli.actions import DECODER_ACTIONS
from openjepa.cli.main import main
from openjepa.core import registry
from openjepa.data.synthetic.moving_scenes import write_clips
from openjepa.viz.settings import FIGURE_OPTIONS
from tests.conftest import slow

README = Path(__file__).parents[1] / "README.md"
DOCS = README.parent / "docs"
PAGES = [README, *(page for page in sorted(DOCS.rglob("*.md")) if page.parent.name != "commands")]

MOST_LINES = 130


def blocks(language: str, page: Path = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize(("page", "printed"), [("README", "[4, 192]"), pytest.param("video", "[4, 128]", marks=slow)])
def test_the_python_block_runs(page, printed, photos, tmp_path):
    (tmp_path / "photos").symlink_to(photos)
    write_clips(tmp_path / "clips", 16, 8, 32, seed=0)
    (code,) = blocks("python", next(each for each in PAGES if each.stem == page and each.parent.name != "results"))
    one_core = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"  # other tests have the rest
    code = one_core + code
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert f"torch.Size({printed})" in done.stdout


def test_the_python_block_is_short():
    assert len(blocks("python")[0].strip().splitlines()) <= 12


def test_the_readme_is_short():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_verb_and_flag_of_the_commands_exists(page, registered):
    from openjepa.cli.main import NAMES

    for line in "\n".join([*blocks("bash", page), *blocks("sh", page)]).splitlines():
        words = line.split("#")[0].split()
        if words and words[0] == "jepa":
            assert words[1] in NAMES
            said = helped(" ".join(choices(words[1:])))
            for flag in {word for word in words if word.startswith("--")} - {"--plugin", "--json"}:
                assert flag in said, f"{flag} of {line}"


def choices(words: list[str]) -> list[str]:
    """Return the words of a command on which its flags depend."""
    chosen = words[:1]
    if len(words) > 1 and words[1] in (*FIGURE_OPTIONS, *DECODER_ACTIONS, *registry.names("recipe")):
        chosen = words[:2]
    for flag in ("--modality", "--method", "--masks", "--plugin"):
        if words[0] == "pretrain" and flag in words:
            chosen += words[words.index(flag) : words.index(flag) + 2]
    return [str(file) for word in chosen for file in (DOCS.parent.glob(word) if "docs/" in word else [word])]


@functools.cache
def helped(verb: str) -> str:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        main([*verb.split(), "--help"])
    return said.getvalue()


def test_every_path_and_heading_that_the_docs_name_is_there():
    for page in [README, *(README.parent / "docs").rglob("*.md")]:
        for path, heading in re.findall(r"\]\(([^)#:]*)(?:#([^)]+))?\)", page.read_text()):
            aim = page.parent / path if path else page
            assert aim.exists(), f"{path} in {page.name}"
            assert not heading or heading in headings(aim), f"{path}#{heading} in {page.name}"


@functools.cache
def headings(page: Path) -> set[str]:
    """As links name them: letters, digits and hyphens."""
    found = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in found}
