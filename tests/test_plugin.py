"""Files outside the package add a modality, a method, masks, a probe, a task and recipes; every command takes them."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from openjepa.cli.main import main
from openjepa.core import registry
from openjepa.core.errors import UserError
from openjepa.training.checkpoint import list_checkpoints
from openjepa.training.config import load_config
from openjepa.training.run_folder import load_newest_method
from tests.ranks import rank_environments
from tests.ready import Ready

TINY = Path(__file__).with_name("tiny")
FILES = ["points", "nearest", "undo", "shifted", "two_sensors", "from_teacher", "centroid", "kinds", "tiny_recipes"]
PLUGINS = ["--plugin", *(str(TINY / f"{name}.py") for name in FILES)]
COMMAND = """
import sys
from tests.small import small
from openjepa.cli.main import main
small()
raise SystemExit(main(sys.argv[1:]))
"""
RUN = ["pretrain", "tiny-points", "--steps", "120", "--save-every", "10", "--log-every", "40", "--no-report",
       "--device", "cpu", "--precision", "fp32", "--threads", "1"]  # fmt: skip


@pytest.fixture(autouse=True)
def plugins():
    """Load the plug-ins in this process, which reads what the commands have written."""
    registry.load_plugins(PLUGINS[1:])


def weights(folder: Path) -> torch.Tensor:
    """Return the weights of the newest checkpoint of a run, which is at its end."""
    method, step = load_newest_method(folder, load_config(folder))
    assert step == 120
    return torch.cat([x.float().flatten() for x in method.state_dict().values()])


def start(arguments: list[str], ranks: int) -> list[Ready]:
    """Start a command on several ranks."""
    return [Ready(COMMAND, *arguments, env=each) for each in rank_environments(ranks)]


@pytest.mark.slow  # the next test trains plug-ins on two ranks, too
def test_a_run_of_plug_ins_on_two_ranks_with_loader_processes_is_killed_and_resumes_exactly(tmp_path):
    """Each rank has a loader process; the run that it is compared with has none."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    loads = ["--workers", "1"]
    assert [each.wait(120) for each in start([*RUN, *PLUGINS, "--workers", "0", "--out", str(whole)], 2)] == [0, 0]
    processes = start([*RUN, *PLUGINS, *loads, "--out", str(killed)], 2)
    while not list_checkpoints(killed / "checkpoints"):
        assert all(each.poll() is None for each in processes)
        time.sleep(0.01)
    for each in processes:
        each.kill()
    assert all(each.wait(60) != 0 for each in processes)
    resumed = start(["pretrain", *PLUGINS, *loads, "--out", str(killed), "--resume"], 2)
    assert [each.wait(120) for each in resumed] == [0, 0]
    assert torch.equal(weights(whole), weights(killed))


def test_stages_run_on_two_ranks_and_train_on_when_more_steps_are_given(tmp_path):
    """Then the teacher is another one: the second stage, which began with the earlier one, refuses to go on."""
    quick = ["--workers", "0", "--device", "cpu", "--precision", "fp32", "--threads", "1", "--no-report"]
    command = ["pretrain", "second-then-first", *quick, *PLUGINS, "--out", str(tmp_path / "run")]

    def steps_taken() -> list[str]:
        return [list_checkpoints(tmp_path / "run" / f"stage-{number}" / "checkpoints")[0].name for number in (1, 2)]

    assert [each.wait(120) for each in start([*command, "--steps", "4"], 2)] == [0, 0]
    assert steps_taken() == ["step-00000004", "step-00000004"]
    assert [each.wait(120) for each in start([*command, "--steps", "6", "--resume"], 2)] == [1, 1]
    assert steps_taken() == ["step-00000006", "step-00000004"]


@pytest.fixture
def run(tmp_path) -> Path:
    """Train on the command line with every plug-in named."""
    out = tmp_path / "run"
    assert main([*RUN[:2], "--steps", "60", *RUN[4:], "--workers", "0", "--out", str(out), *PLUGINS]) == 0
    return out


def test_a_run_of_plug_ins_is_probed_and_reported(run):
    probe = ["probe", str(run), "--data.labels", "kinds", "--probes", "centroid", "knn", "--device", "cpu", *PLUGINS]
    assert main(probe) == 0
    scores = json.loads((run / "probes" / "kinds.json").read_text())["scores"]
    assert {(each["features"], each["metric"]) for each in scores} >= {
        ("this encoder", "centroid"),
        ("before training", "centroid"),
        ("raw values", "centroid"),
    }
    assert all(each["task"] == "kinds" and each["low"] <= each["value"] <= each["high"] for each in scores)
    assert main(["report", str(run), *PLUGINS]) == 0
    page = (run / "report.html").read_text()
    assert "centroid" in page and "points cannot be drawn by jepa report" in page


def test_config_names_registered_classes_and_says_what_is_missing(run, monkeypatch, capsys):
    config = json.loads((run / "config.json").read_text())
    assert (config["data"]["type"], config["masks"]["type"]) == ("points", "nearest")
    assert not re.search(r"tiny|\.py|import", (run / "config.json").read_text().replace(str(run), ""))
    monkeypatch.setattr(registry, "PLUGINS", registry.Plugins())
    for command in (["probe", str(run), "--data.labels", "kinds"], ["pretrain", "--out", str(run), "--resume"]):
        assert main(command) == 1
        sentence = capsys.readouterr().err
        assert "unknown modality 'points'" in sentence and "--plugin points.py" in sentence
        assert sentence.count("\n") == 1


def test_help_shows_exactly_the_settings_of_the_chosen_classes(capsys):
    with pytest.raises(SystemExit):
        main(["pretrain", "--modality", "shifted", "--method", "undo", "--masks", "nearest", "--help", *PLUGINS])
    text = capsys.readouterr().out
    flags = set(re.findall(r"^\W*(--(?:data|method|masks)\.[\w-]+)", text, re.MULTILINE))
    flags.discard("--data.root")  # of the introduction
    assert flags == {"--data.size", "--method.dim", "--masks.count", "--masks.masks-per-sample"}
    choices = re.findall(r"--(modality|method|masks) NAME (.*?)(?= --)", re.sub(r"\s+", " ", text))
    assert [("points" in names, "undo" in names, "nearest" in names) for _, names in choices] == [
        (True, False, False),
        (False, True, False),
        (False, False, True),
    ]


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("missing.py", r"--plugin .*missing.py does not exist: give a file \(plugin.py\) or an installed module"),
        ("no_such_lab.audio", "No module named 'no_such_lab'"),
        ("mae.py", "defines the method 'mae', which exists already: rename the file"),
        ("empty.py", "defines nothing to register: it needs a class with the file's name"),
    ],
)
def test_a_plug_in_that_cannot_be_used_is_one_sentence(source, sentence, tmp_path, capsys):
    (tmp_path / "empty.py").write_text("x = 1\n")
    (tmp_path / "mae.py").write_text("class MAE:\n    build = check = cost = None\n")
    path = str(tmp_path / source) if source.endswith(".py") else source
    assert main(["recipes", "--plugin", path]) == 1
    text = capsys.readouterr().err
    assert re.search(sentence, text) and text.count("\n") == 1


def test_plugin_without_a_value_says_what_to_type(capsys):
    assert main(["recipes", "--plugin"]) == 1
    assert "--plugin needs a file or a module: type --plugin my_plugin.py" in capsys.readouterr().err


def test_an_installed_package_registers_by_its_entry_point(tmp_path):
    """A process of its own: entry points are read from the path that Python starts with."""
    package, info = tmp_path / "my_lab", tmp_path / "my_lab-1.0.dist-info"
    package.mkdir()
    info.mkdir()
    (package / "__init__.py").write_text("")
    (package / "audio.py").write_text("class Audio:\n    pass\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-lab\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[openjepa.modality]\nhertz = my_lab.audio:Audio\n")
    code = "from openjepa.core import registry; print(registry.names('modality'), registry.find('modality', 'hertz'))"
    path = {"PYTHONPATH": f"{tmp_path}:{Path.cwd()}", "PATH": "/usr/bin"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=path, check=True)
    assert "'hertz'" in result.stdout and "my_lab.audio.Audio" in result.stdout


def test_listing_names_imports_nothing_of_the_package():
    code = (
        "import sys; from openjepa.core import registry\n"
        "for kind in registry.FOLDERS: registry.names(kind)\n"
        "assert 'torch' not in sys.modules and not any(name.startswith('openjepa.methods') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_class_is_found_by_the_name_of_its_file(tmp_path):
    file = tmp_path / "four_rooms.py"
    file.write_text("class Other:\n    pass\n\n\nclass FourRooms:\n    def run(self): ...\n")
    registry.load_plugins([str(file)])
    assert registry.find("probe", "four-rooms").__name__ == "FourRooms"
    del registry.PLUGINS.registered["probe", "four-rooms"]
    with pytest.raises(UserError, match="unknown probe 'four-room': choose one of"):
        registry.find("probe", "four-room")
