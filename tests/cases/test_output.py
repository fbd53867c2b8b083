"""Output that is a pipe, a file, closed, full or of another encoding, and output as JSON."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from openjepa.cli import bench, recipes
from openjepa.cli.document import name_result, plain, pop_json_switch
from openjepa.cli.main import main
from openjepa.core import console as printing
from openjepa.core.console import console, info, print_line, warn
from openjepa.core.tables import print_table
from openjepa.core.types import Score
from openjepa.evaluation.index import read_rows

JEPA = [sys.executable, "-m", "openjepa"]


def jepa(*words: str, **environment: str) -> subprocess.CompletedProcess:
    """Run a command that needs no torch, in this environment."""
    return subprocess.run([*JEPA, *words], capture_output=True, env={**os.environ, **environment}, timeout=60)


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp1252", "cp437", "koi8-r", "ascii:strict", "utf-16"])
def test_every_encoding_gets_the_output(encoding):
    done = jepa("recipes", PYTHONIOENCODING=encoding)
    text = done.stdout.decode(encoding.split(":")[0])
    assert done.returncode == 0 and not done.stderr
    assert "ijepa-vith14-in1k\tViT-H/14, ImageNet-1k, 224 px, 300 epochs" in text


def test_the_locale_c_gets_help_and_output():
    for words in (["--help"], ["recipes"], ["decoder", "--help"]):
        done = jepa(*words, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
        assert done.returncode == 0 and not done.stderr and done.stdout.isascii()


class Limited(io.TextIOWrapper):
    """A stream of another encoding, as a terminal has; not one that the command line has prepared."""

    def __init__(self, encoding):
        super().__init__(io.BytesIO(), encoding=encoding, newline="")

    @property
    def text(self) -> str:
        self.flush()
        return self.buffer.getvalue().decode(self.encoding)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_functions_of_the_package_print_to_every_stream(encoding, monkeypatch):
    stream = Limited(encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    info("8 → 16 × 2 – 3 … ≥ 4: 猫, bad\udcff")
    print_table(("R²", "↓"), [("50 (40–60)", "猫")])
    print_line("– done")
    text = stream.text
    assert "8 -> 16" in text and ">= 4" in text and r"\u732b" in text and r"bad\xff" in text and "done" in text
    assert ("×" in text and "R²" in text) if encoding != "ascii" else ("x 2 - 3 ..." in text and "R^2" in text)


def test_a_framed_table_is_of_signs_that_the_terminal_has(monkeypatch):
    stream = Limited("ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(console, "_force_terminal", True)
    print_table(("class", "n"), [("猫", "1")])
    assert r"\u732b" in stream.text and r"\u2500" not in stream.text and "|" in stream.text


def test_a_stream_that_shows_everything_gets_everything(monkeypatch):
    stream = Limited("utf-8")
    monkeypatch.setattr(sys, "stdout", stream)
    info("→ × – 猫")
    assert stream.text == "→ × – 猫\n"


def shell(line: str) -> subprocess.CompletedProcess:
    line = line.replace("jepa", " ".join(JEPA))
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60)


def test_a_closed_output_is_no_error():
    done = shell("jepa recipes >&-; echo $?; jepa recipes >&- 2>&-; echo $?; jepa recipes <&- | tail -1")
    assert done.stdout.splitlines()[:2] == ["0", "0"] and "world-rooms" in done.stdout and not done.stderr


def test_a_reader_that_leaves_is_no_error():
    done = shell(
        "jepa recipes | head -1; echo ${PIPESTATUS[0]}; jepa --help | head -1 >/dev/null; echo ${PIPESTATUS[0]}"
    )
    assert done.stdout.splitlines() == ["recipe\twhat it is", "0", "0"] and not done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_told_once_and_fails_only_the_document():
    done = shell("jepa recipes > /dev/full")
    assert done.returncode == 0 and done.stderr.count("cannot be written") == 1 and "Traceback" not in done.stderr
    done = shell("jepa recipes --json > /dev/full")
    assert done.returncode == 1 and "the result could not be written to standard output" in done.stderr


def test_a_file_that_is_opened_later_does_not_get_the_output(tmp_path):
    code = (
        "from openjepa.core.console import prepare_streams; prepare_streams(); import os; "
        f"handle = os.open({str(tmp_path / 'data')!r}, os.O_CREAT | os.O_WRONLY); assert handle > 2; os.write(1, b'x')"
    )
    assert subprocess.run(["bash", "-c", f'{sys.executable} -c "{code}" >&-'], timeout=60).returncode == 0
    assert (tmp_path / "data").read_bytes() == b""


def test_a_stream_that_this_process_has_closed_is_no_error(monkeypatch):
    stream = io.StringIO()
    stream.close()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(printing, "STREAMS", {name: printing.OpenStream(name) for name in ("stdout", "stderr")})
    print_line("nobody reads this")
    monkeypatch.setattr(sys, "stderr", stream)
    warn("nor this")


# --- pipes -------------------------------------------------------------------------------------------------------


def test_a_row_in_a_pipe_is_one_line_with_every_cell(capsys):
    path = "a/" * 200 + "x y.jpg"
    print_table(("file", "", "class"), [(path, "", "cat"), ("two\nlines", "a\tb", ["one", "two"])], title="found")
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["found", "file\t\tclass", f"{path}\t\tcat", "two\\nlines\ta\\tb\tone\ttwo"]


def test_messages_in_a_pipe_are_not_wrapped(capsys):
    info("written    " + "long/" * 60)
    assert capsys.readouterr().out == "written    " + "long/" * 60 + "\n"


# --- JSON --------------------------------------------------------------------------------------------------------


def test_values_that_json_lacks_have_a_form():
    score = Score("data", "bad\udcff", "knn", float("nan"), None, float("inf"))
    content = name_result("probe", [score])
    text = json.dumps(content, allow_nan=False)
    assert json.loads(text)["scores"][0] == {**score._asdict(), "value": None, "high": None}
    values = {1: torch.tensor([1.0, float("nan")]), "n": np.float32("inf"), "p": Path("a"), "t": (True, None, {2})}
    assert plain(values) == {"1": [1.0, None], "n": None, "p": "a", "t": [True, None, [2]]}


@pytest.mark.parametrize(
    ("command", "result", "content"),
    [
        ("embed", Path("x.npy"), {"result": "x.npy"}),
        ("show", [Path("a.png")], {"files": ["a.png"]}),
        ("predict", [], {"predictions": []}),
        ("doctor", {"files": 3}, {"files": 3}),
        ("pretrain", None, {"result": None}),
    ],
)
def test_every_result_is_an_object(command, result, content):
    assert name_result(command, result) == content


def test_the_switch_may_stand_anywhere_and_a_file_of_bench_is_left():
    assert pop_json_switch("probe", ["run", "--json", "--data.root", "x"]) == (True, ["run", "--data.root", "x"])
    assert pop_json_switch("recipes", []) == (False, []) and pop_json_switch("search", ["--json"]) == (True, [])
    assert pop_json_switch("search", ["--json", "x.npy", "row:1"]) == (True, ["x.npy", "row:1"])
    assert pop_json_switch("bench", ["--json", "x.json", "--count", "3"])[0] is False
    assert pop_json_switch("bench", ["--json", "--count", "3"]) == (True, ["--count", "3"])
    assert pop_json_switch("bench", ["--json"]) == (True, [])


def test_standard_output_is_one_document_and_nothing_else(capsys):
    assert main(["recipes", "--json"]) == 0
    said = capsys.readouterr()
    listed = json.loads(said.out)["recipes"]
    assert {"recipe", "summary"} == set(listed[0]) and "cifar10" in [each["recipe"] for each in listed]
    assert "cifar10\t" in said.err and "{" not in said.err


def test_without_the_switch_nothing_is_json(capsys):
    assert main(["recipes"]) == 0
    assert "{" not in capsys.readouterr().out


def test_prints_of_other_libraries_go_to_standard_error(capsys, monkeypatch):
    def chatty(_):
        print("loading …")
        sys.stdout.write("50 %\n")
        return {"speed": float("nan")}

    monkeypatch.setattr(bench, "main", chatty)
    assert main(["bench", "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out) == {"speed": None} and said.err == "loading …\n50 %\n"


def test_an_error_is_a_sentence_and_no_document(capsys):
    assert main(["recipes", "nonsense", "--json"]) == 1
    said = capsys.readouterr()
    assert said.out == "" and "no recipe 'nonsense'" in said.err


def test_one_rank_alone_prints_the_document(capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert main(["recipes", "--json"]) == 0
    assert capsys.readouterr().out == ""


def test_help_names_the_switch(capsys):
    main(["--help"])
    assert "--json prints the result as one JSON document" in capsys.readouterr().out


def test_a_recipe_is_described_as_a_document(capsys):
    assert main(["recipes", "cifar10", "--json=true"]) == 0
    assert json.loads(capsys.readouterr().out)["recipes"][0]["description"] == recipes.describe_recipe("cifar10")


@pytest.fixture
def index(tmp_path) -> Path:
    """An index without pictures: two rows of each of four files, one of them not UTF-8."""
    names = ["a.jpg", "猫.jpg", "bad\udcff.jpg", "[x].jpg"]
    rows = np.random.default_rng(0).normal(size=(4, 8)).repeat(2, 0)
    np.save(tmp_path / "x.npy", rows.astype(np.float32))
    lines = [f"{tmp_path}/{copy}{name}," for name in names for copy in range(2)]
    (tmp_path / "x.npy.csv").write_text("\n".join(["file,class", *lines, ""]), "utf-8", "surrogateescape")
    return tmp_path / "x.npy"


def document(capsys, *words: str) -> dict:
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_indexes_are_searched_grouped_and_clustered_as_documents(index, capsys):
    hits = document(capsys, "search", str(index), "row:0", "--count", "20")["hits"]
    assert len(hits) == 7 and set(hits[0]) == {"row", "cosine", "file", "label"} and hits[0]["row"] == 1
    assert any(each["file"].endswith("bad\udcff.jpg") for each in hits)
    groups = document(capsys, "duplicates", str(index), "--threshold", "0.99")["groups"]
    assert sorted([each["row"] for each in group] for group in groups) == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert groups[0][0]["file"].endswith(".jpg")
    clusters = document(capsys, "cluster", str(index), "--clusters", "2")["clusters"]
    assert len(clusters) == 8 and set(clusters[0]) == {"file", "class", "cluster", "cosine"}


def test_paths_of_an_index_are_what_the_locale_calls_them(index, monkeypatch):
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "ascii")
    files, _ = read_rows(index)
    assert any(file.endswith("\udce7\udc8c\udcab.jpg") for file in files)  # the bytes of 猫
