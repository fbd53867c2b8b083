"""The tool as a user types it: what it prints, how it fails, what it leaves behind."""

import importlib.util
import json
import os
import re
import subprocess
import sys

import pytest

from openjepa.cli import main as command_line
from openjepa.cli.main import main, normalize_switch
from openjepa.cli.pretrain import pretrain
from openjepa.core.errors import UserError
from tests.conftest import replace

FAST = [
    "--no-report",
    "--device",
    "cpu",
    "--precision",
    "fp32",
    "--threads",
    "1",
    "--workers",
    "0",
    "--steps",
    "3",
    "--batch-size",
    "8",
    "--method.encoder.dim",
    "24",
    "--method.encoder.depth",
    "1",
    "--method.encoder.num-heads",
    "1",
    "--method.predictor.dim",
    "24",
    "--method.predictor.depth",
    "1",
    "--method.target-layers",
    "0",
]


@pytest.fixture
def tiny_run(tiny):

    pretrain(tiny)
    return tiny.out


def test_without_a_command_it_lists_the_commands(capsys):
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert all(command in printed for command in ("pretrain", "probe", "demo", "recipes"))


def test_help_shows_the_commands_in_groups(capsys):
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    headings = [line for line in lines if re.fullmatch(r"\w+:", line)]
    assert headings == ["Train:", "Measure:", "Look:", "Act:", "Search:", "Exchange:"]
    listed = [line.split()[1] for line in lines if line.startswith("  jepa ")]
    assert listed == command_line.NAMES and len(listed) == len(set(listed))
    assert lines[lines.index("Train:") + 1].startswith("  jepa pretrain [RECIPE]")
    assert lines[lines.index("Search:") + 1].startswith("  jepa embed RUN FOLDER")


def test_help_of_pretrain_begins_with_the_ten_settings_that_people_change(capsys):
    with pytest.raises(SystemExit) as end:
        main(["pretrain", "cifar10", "--help"])
    assert end.value.code == 0
    beginning, settings = re.split(r"^\W*options\b", capsys.readouterr().out, maxsplit=1, flags=re.MULTILINE)
    flags = [line.split()[0] for line in beginning.splitlines() if line.startswith("  --")]
    assert flags == [
        "--data.root", "--modality", "--method", "--masks", "--out", "--budget", "--resume", "--batch-size",
        "--optim.lr", "--device", "--seed", "--init-from", "--plugin", "--dry-run",
    ]  # fmt: skip
    chosen_first = {"--modality", "--method", "--masks", "--plugin"}  # they decide which settings there are
    assert all(f" {flag}" in settings for flag in flags if flag not in chosen_first)
    assert "(default: 44.0)" in settings  # epochs of the recipe
    groups = re.findall(r"^\W*(\w+) options\b", settings, re.MULTILINE)
    assert groups[:5] == ["training", "execution", "resources", "output", "guards"]


@pytest.fixture(scope="module")
def seconds_of_torch() -> float:
    return processor_seconds("import torch")


@pytest.mark.parametrize(
    ("command", "share"),
    [("probe", 0.5), ("search", 0.5), ("decoder train", 0.5), ("recipes", 0.5), ("pretrain", 2.0)],
)
def test_help_is_quick_beside_importing_torch(command, share, seconds_of_torch):
    code = f"""
import contextlib
from openjepa.cli.main import main
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(sys.stderr):
    main({[*command.split(), "--help"]!r})
"""
    assert processor_seconds(code) < share * seconds_of_torch


def processor_seconds(code: str) -> float:
    """Return the processor time, user and system, of the quickest of three runs of a script."""
    code = f"""
import resource, sys
{code}
usage = resource.getrusage(resource.RUSAGE_SELF)
print(usage.ru_utime + usage.ru_stime)
"""
    calls = [subprocess.run([sys.executable, "-c", code], capture_output=True, check=True) for _ in range(3)]
    return min(float(call.stdout) for call in calls)


def test_an_unknown_command_gets_a_suggestion_and_the_list_of_commands(capsys):
    assert main(["train"]) == 2
    assert "unknown command 'train': did you mean pretrain? Commands: pretrain, demo" in capsys.readouterr().err
    assert main(["xyzzy"]) == 2
    error = capsys.readouterr().err
    assert "unknown command 'xyzzy'. Commands: pretrain" in error and "did you mean" not in error


def test_a_folder_and_a_place_are_enough(photos, tmp_path, capsys, curves):
    """Everything else is chosen, said with its reasons, and saved."""
    out = tmp_path / "run"
    assert main(["pretrain", "--data.root", str(photos), "--out", str(out), *FAST, "--report"]) == 0
    said = capsys.readouterr().out
    assert "chosen     96 images of about" in said and "batch size 16" in said and "96 images are few" in said
    assert re.search(r"^changed    .*steps: 0 → 3; batch_size: \d+ → 8", said, re.MULTILINE)
    assert "96 samples, 32×32 px, patch 4" in said and f"jepa probe {out} --data.root" in said
    for name in (
        "config.json",
        "environment.json",
        "data.json",
        "metrics.jsonl",
        "curves.png",
        "report.html",
        "export/encoder.safetensors",
    ):
        assert (out / name).stat().st_size > 0
    assert main(["probe", str(out), "--data.root", str(photos), "--device", "cpu"]) == 0
    assert "before training" in capsys.readouterr().out


def test_a_resume_needs_nothing_but_the_folder(photos, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["pretrain", "--data.root", str(photos), "--out", str(out), *FAST]) == 0
    assert main(["pretrain", "--out", str(out), "--resume"]) == 0
    captured = capsys.readouterr()
    assert "resumed after step 3" in captured.out and "give more --steps" in captured.out and captured.err == ""
    assert captured.out.count("changed ") == 1  # by the first of the two


def test_resume_if_any_starts_a_run_where_there_is_none(photos, tmp_path):
    assert main(["pretrain", "--data.root", str(photos), "--out", str(tmp_path / "run"), "--resume=if-any", *FAST]) == 0


@pytest.mark.parametrize("flag", ["--dry-run", "--dry-run=true"])
def test_a_rehearsal_says_how_long_and_leaves_nothing(photos, tmp_path, capsys, flag):
    assert main(["pretrain", "--data.root", str(photos), "--out", str(tmp_path / "run"), flag, *FAST]) == 0
    said = capsys.readouterr().out
    assert (
        all(word in said for word in ("images/s", "3 steps, about", "memory", "loader"))
        and not (tmp_path / "run").exists()
    )


def test_recipes_lists_recipes_and_describes_one(capsys):
    assert main(["recipes"]) == 0 and "ijepa-vith14-in1k" in capsys.readouterr().out
    assert main(["recipes", "cifar10"]) == 0 and "jepa pretrain cifar10" in capsys.readouterr().out
    assert (
        main(["recipes", "nonsense"]) == 1 and "no recipe 'nonsense'; recipes: audio-small" in capsys.readouterr().err
    )


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "data"
    made.mkdir()
    return made


def bad(folder, name, photos):
    """A folder with something wrong, what else to type, and a part of the sentence to expect."""
    pictures = sorted(photos.rglob("*.png"))
    extra: list[str] = []
    if name == "text only":
        (folder / "notes.doc").write_text("x")
    if name == "one image":
        os.link(pictures[0], folder / "a.png")
    if name == "few images":
        for number in range(10):
            os.link(pictures[number], folder / f"{number}.png")
        extra = ["--batch-size", "64"]
    if name == "no pictures":
        for number in range(12):
            (folder / f"{number}.jpg").write_text("not a picture")
    if name in SETTINGS:
        for number in range(24):
            os.link(pictures[number], folder / f"{number}.png")
        extra = SETTINGS[name]
    return extra


SETTINGS = {
    "size": ["--data.size", "30", "30"],
    "grid": ["--data.size", "4", "4"],
    "heads": ["--method.encoder.dim", "25", "--method.encoder.num-heads", "2"],
    "turns": ["--method.encoder.dim", "27", "--method.encoder.positions", "rope"],
    "unwritable": ["--out", "/dev/null/run"],
    "batch": ["--batch-size", "0"],
    "hold": ["--optim.warmup", "0.3", "--optim.constant-fraction", "0.9"],
    "layers": ["--method.target-layers", "4", "5"],
    "rate": ["--optim.lr", "-1e-3"],
    "decay": ["--optim.beta2", "1"],
    "not finite": ["--data.color-jitter", "nan"],
    "threads": ["--threads", "-1"],
    "aspect": ["--data.crop-aspect", "0", "1"],
    "channels": ["--data.channels", "4"],
}


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("empty", "no images in"),
        ("text only", "no images in"),
        ("one image", "too few images to learn from: 1 in"),
        ("few images", "the dataset has 10 samples, fewer than --batch-size 64: try --batch-size"),
        ("no pictures", "none of the 12 files inspected is an image"),
        ("size", "not a multiple of patch"),
        ("grid", "is too small"),
        ("heads", "must be a multiple of its 2 attention heads, got 25: try --method.encoder.dim 24"),
        ("turns", "an even head width (dim / num_heads) of at least 4, got 27: try 26"),
        ("unwritable", "/dev/null"),
        ("batch", "--batch-size must be >= 1, got 0"),
        ("layers", "--method.target-layers 4 5 must be layers of the encoder, numbered 0 to "),
        ("rate", "--optim.lr must be between 0 and 1, got -0.001: try --optim.lr 0.001"),
        ("decay", "--optim.beta2 must be in [0, 1), got 1: try --optim.beta2"),
        ("not finite", "--data.color-jitter must be finite, got nan"),
        ("threads", "--threads must be >= 0 (0 = all cores), got -1"),
        ("aspect", "is not a range above 0: try --data.crop-aspect"),
        ("channels", "has 3 bands of 8 bits, not 4 channels: to train on such images, type --data.channels 3"),
        ("hold", "must be < 1, and both >= 0, got 0.3 and 0.9: try --optim.warmup 0.1"),
    ],
)
def test_bad_input_is_one_sentence_and_a_status(folder, photos, tmp_path, capsys, name, sentence):
    extra = bad(folder, name, photos)
    status = main(["pretrain", "--data.root", str(folder), "--out", str(tmp_path / "run"), *FAST, *extra])
    said = capsys.readouterr().err.strip()
    assert status == 1
    assert sentence in said and said.startswith("jepa: ") and "\n" not in said and "Traceback" not in said
    assert not (tmp_path / "run" / "config.json").exists()
    assert name != "turns" or not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--method.masked=false", "--method.no-masked"),
        ("--method.masked=True", "--method.masked"),
        ("--report=false", "--no-report"),
        ("--out=runs/true", "--out=runs/true"),
        ("true", "true"),
    ],
)
def test_a_switch_may_be_written_with_its_value(typed, meant):
    assert normalize_switch(typed) == meant


def test_a_missing_folder_is_named(tmp_path, capsys):
    assert main(["pretrain", "--data.root", str(tmp_path / "gone"), "--out", str(tmp_path / "run")]) == 1
    assert "gone does not exist" in capsys.readouterr().err


def test_a_run_that_exists_is_left_alone(photos, tmp_path, capsys):
    line = ["pretrain", "--data.root", str(photos), "--out", str(tmp_path / "run"), *FAST]
    assert main(line) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert main(line) == 1
    assert "already holds a run: continue it with --resume" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}


def test_a_folder_with_some_bad_files_trains_and_lists_them(photos, folder, tmp_path):
    (folder / "zero.png").write_bytes(b"")
    whole = next(photos.rglob("*.png")).read_bytes()
    (folder / "truncated.png").write_bytes(whole[: len(whole) // 2])
    (folder / "text.jpg").write_text("hello")
    assert (
        main(
            [
                "pretrain",
                "--data.root",
                str(photos),
                str(folder),
                "--out",
                str(tmp_path / "run"),
                *FAST,
                "--steps",
                "12",
            ]
        )
        == 0
    )
    listed = (tmp_path / "run" / "skipped.jsonl").read_text()
    assert all(name in listed for name in ("zero.png", "truncated.png", "text.jpg"))


def test_python_m_openjepa_is_the_same_tool():
    assert subprocess.run([sys.executable, "-m", "openjepa", "--help"], capture_output=True).returncode == 0


def test_the_demo_ends_with_a_table_and_a_picture(tmp_path, capsys):
    from openjepa.cli.demo import demo
    from openjepa.cli.settings import Demo

    small = replace(Demo(), out=tmp_path / "demo", samples=160, labeled=160, test=64, epochs=1.0)
    result = demo(small)
    rows = ("this encoder", "before training", "raw pixels", "most frequent class")
    tasks = ("scenes-count", "scenes-distance", "scenes-kind")
    assert [(each.features, each.task) for each in result] == [(row, task) for row in rows for task in tasks]
    assert all(0 <= each.low <= each.value <= each.high <= 100 for each in result)
    written = json.loads((tmp_path / "demo" / "demo.json").read_text())
    assert written["demo"] == "scenes" and written["scores"] == [each._asdict() for each in result]
    assert (tmp_path / "demo" / "features.png").stat().st_size > 10_000
    assert "scenes-count %" in capsys.readouterr().out

    page = (tmp_path / "demo" / "run" / "report.html").read_text(encoding="utf-8")  # says what the demo measured
    assert all(f"<td>{row}</td>" in page for row in rows) and all(task in page for task in tasks)
    values = [f"{each.value:.1f} ({each.low:.1f}–{each.high:.1f})" for each in result]
    assert all(f"<td>{value}</td>" in page for value in values) and "Not measured yet" not in page
    command = (
        f"jepa demo scenes --out {tmp_path}/demo --samples 160 --labeled 160 --test 64 --epochs 1 --budget 5m --seed 0"
    )
    assert f"160 images in {tmp_path}/demo/scenes" in page and f"<code>{command}</code>" in page
    assert "160 scenes with labels to train on, 64 other scenes to test" in page and 'id="features"' in page
    with pytest.raises(UserError, match="holds a demo with seed 0, not 1: give another --out"):
        demo(replace(small, seed=1))


def test_a_board_that_is_not_installed_says_what_to_install(photos, tmp_path, capsys):
    line = ["pretrain", "--data.root", str(photos), "--out", str(tmp_path / "run"), *FAST, "--loggers", "wandb"]
    if importlib.util.find_spec("wandb"):
        pytest.skip("wandb is installed")
    assert main(line) == 1
    assert "pip install 'openjepa[wandb]'" in capsys.readouterr().err


def test_a_verb_that_is_interrupted_says_so(monkeypatch, capsys):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(command_line, "command", lambda name: interrupted)
    assert main(["doctor", "photos"]) == 130
    assert capsys.readouterr().err == "jepa: stopped\n"


def test_an_objective_that_needs_its_whole_batch_refuses_parts(photos, tmp_path, capsys):
    line = [
        "pretrain",
        "vicreg-cifar10",
        "--data.root",
        str(photos),
        "--out",
        str(tmp_path / "run"),
        "--accumulate",
        "4",
    ]
    assert main(line) == 1
    assert "compares the samples of a batch" in capsys.readouterr().err


def test_joint_embedding_pretrains_from_a_folder(photos, tmp_path):
    run = tmp_path / "run"
    line = ["vicreg-cifar10", "--data.root", str(photos), "--out", str(run), "--steps", "2", "--batch-size", "16"]
    assert main(["pretrain", *line, "--device", "cpu", "--workers", "0"]) == 0
    assert (run / "export" / "config.json").is_file()


def test_joint_embedding_of_one_image_is_refused(photos, tmp_path, capsys):
    line = [
        "pretrain",
        "vicreg-cifar10",
        "--data.root",
        str(photos),
        "--out",
        str(tmp_path / "run"),
        "--batch-size",
        "1",
    ]
    assert main(line) == 1
    assert "try --batch-size 128" in capsys.readouterr().err and not (tmp_path / "run" / "config.json").exists()


def test_what_the_system_refuses_is_told_with_the_path_and_what_to_look_at(photos, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["doctor", str(photos), "--workers", "1", "--out", str(tmp_path / "file")]) == 1
    assert f"{tmp_path / 'file'}: File exists: check that path" in capsys.readouterr().err


def test_a_config_that_was_edited_is_named_with_what_is_wrong(tiny_run, capsys):
    file = tiny_run / "config.json"
    file.write_text(file.read_text().replace('"batch_size": 16', '"batch_size": "x"'))
    assert main(["pretrain", "--out", str(tiny_run), "--resume"]) == 1
    assert f"{file}: batch_size cannot be 'x'" in capsys.readouterr().err
