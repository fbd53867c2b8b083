"""Runs resume on the same data, wherever it is, and refuse other data; features are never stale."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from PIL import Image as Pillow

from openjepa.cli.main import main
from openjepa.cli.pretrain import pretrain
from openjepa.core.errors import Interrupted, UserError
from openjepa.core.outputs import MARK
from openjepa.training.config import load_config
from openjepa.training.signals import StopSignals
from openjepa.training.stages import Stages, load_stages, record_stages
from tests.cases.inputs import fill
from tests.conftest import replace, slow
from tests.faults import load_outcome, same_outcome


def slow_case(value: str):
    return pytest.param(value, marks=slow)


@pytest.fixture
def run(tiny, tmp_path, monkeypatch):
    """Return the settings of a run on tmp_path/here/photos, given as `photos` from that folder."""
    fill(tmp_path / "here" / "photos", 20, ending="bmp", side=32)
    monkeypatch.chdir(tmp_path / "here")
    return replace(tiny, data=replace(tiny.data, root=("photos",)), steps=6, batch_size=8, save_every=3)


def stop_early(settings) -> None:
    """Train half of the steps, as a run does that a signal interrupts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StopSignals, "check", lambda self, step, device: signal.SIGTERM if step + 1 == 3 else 0)
        with pytest.raises(Interrupted):
            pretrain(settings)


def age(out: Path, root: str = "photos") -> None:
    """Turn data.json and config.json into those of an earlier version: hashed paths, and roots as typed."""
    import hashlib

    paths = sorted(str(Path(root) / file.name) for file in Path(root).iterdir())
    lines = "\0".join(f"{path}\0{Path(path).stat().st_size}" for path in paths)
    data, config = (json.loads((out / f"{name}.json").read_text()) for name in ("data", "config"))
    del data["identity"], data["files"]
    data["fingerprint"] = hashlib.sha256(lines.encode()).hexdigest()[:32]
    config["data"]["root"] = [root]
    (out / "data.json").write_text(json.dumps(data))
    (out / "config.json").write_text(json.dumps(config))


def change_pixels(file: Path) -> None:
    """Paint over a picture without compression: name, size and time stay."""
    status = file.stat()
    Pillow.new("RGB", Pillow.open(file).size, (9, 99, 200)).save(file)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert file.stat().st_size == status.st_size


@pytest.mark.parametrize("way", ["absolute", slow_case("link"), slow_case("dots"), "moved", "typed"])
def test_a_run_resumes_bit_exact_on_the_same_folder_under_another_path(run, tmp_path, monkeypatch, way, capsys):
    pretrain(replace(run, out=tmp_path / "whole"))
    stop_early(run)
    photos = tmp_path / "here" / "photos"
    (tmp_path / "link").symlink_to(photos)
    if way == "moved":
        photos.rename(tmp_path / "moved")
    if way != "typed":
        monkeypatch.chdir(tmp_path)
    root = {"absolute": photos, "link": tmp_path / "link", "dots": "here/../here/photos", "moved": "moved"}
    capsys.readouterr()
    pretrain(replace(run, resume="yes", data=replace(run.data, root=(str(root.get(way, "photos")),))))
    assert same_outcome(load_outcome(run.out), load_outcome(tmp_path / "whole"))
    assert "exact" not in capsys.readouterr().err


def test_a_run_resumes_from_another_working_folder_by_resume_alone(run, tmp_path, monkeypatch):
    pretrain(replace(run, out=tmp_path / "whole"))
    stop_early(run)
    monkeypatch.chdir(tmp_path)
    assert main(["pretrain", "--out", str(run.out), "--resume", "yes"]) == 0
    assert same_outcome(load_outcome(run.out), load_outcome(tmp_path / "whole"))


def test_a_run_and_its_data_that_moved_together_resume_by_resume_alone(run, tmp_path, monkeypatch):
    pretrain(replace(run, out=tmp_path / "whole"))
    stop_early(replace(run, out=Path("runs/first")))
    (tmp_path / "here").rename(tmp_path / "there")
    monkeypatch.chdir(tmp_path / "there")
    assert main(["pretrain", "--out", "runs/first", "--resume", "yes"]) == 0
    assert same_outcome(load_outcome(Path("runs/first")), load_outcome(tmp_path / "whole"))


def test_a_folder_that_moved_says_what_to_type(run, tmp_path, monkeypatch, capsys):
    stop_early(run)
    (tmp_path / "here" / "photos").rename(tmp_path / "moved")
    assert main(["pretrain", "--out", str(run.out), "--resume", "yes"]) == 1
    message = capsys.readouterr().err
    assert f"{tmp_path}/here/photos, data of the run in" in message and "add --data.root NEW_PATH" in message
    assert main(["pretrain", "--out", str(run.out), "--resume", "yes", "--data.root", str(tmp_path / "moved")]) == 0


@pytest.mark.parametrize("change", ["pixels", slow_case("name"), slow_case("swap"), "added"])
def test_a_run_on_changed_data_is_not_resumed_unless_allowed(run, tmp_path, change, capsys):
    stop_early(run)
    first, second = (tmp_path / "here" / "photos" / f"{number:03d}.bmp" for number in (0, 1))
    if change == "pixels":
        change_pixels(first)
    elif change == "name":
        first.rename(first.with_name("000x.bmp"))
    elif change == "swap":
        first.rename(first.with_suffix(".x"))
        second.rename(first)
        first.with_suffix(".x").rename(second)
    else:
        shutil.copy(first, first.with_name("new.bmp"))
    message = "20 files then, 21 now" if change == "added" else "names or contents of the 20 files differ"
    with pytest.raises(UserError, match=message):
        pretrain(replace(run, resume="yes"))
    pretrain(replace(run, resume="yes", allow_data_change=True))
    assert "not exact" in capsys.readouterr().err


@pytest.mark.parametrize("way", ["typed", slow_case("absolute"), "moved"])
def test_a_run_of_an_earlier_version_resumes_bit_exact(run, tmp_path, monkeypatch, way, capsys):
    """Its data.json holds a hash of the paths as they were typed."""
    pretrain(replace(run, out=tmp_path / "whole"))
    stop_early(run)
    age(run.out)
    root = "photos" if way == "typed" else str(tmp_path / "here" / "photos")
    if way == "moved":
        root = str((tmp_path / "here" / "photos").rename(tmp_path / "moved"))
        monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    pretrain(replace(run, resume="yes", data=replace(run.data, root=(root,))))
    assert same_outcome(load_outcome(run.out), load_outcome(tmp_path / "whole"))
    assert "exact" not in capsys.readouterr().err
    assert json.loads((run.out / "data.json").read_text())["identity"] == "contents"


def test_a_run_of_an_earlier_version_on_other_files_is_not_resumed(run, tmp_path):
    stop_early(run)
    age(run.out)
    (tmp_path / "here" / "photos" / "000.bmp").rename(tmp_path / "here" / "photos" / "x.bmp")
    with pytest.raises(UserError, match="the data have changed"):
        pretrain(replace(run, resume="yes"))


def test_a_run_of_an_earlier_version_from_elsewhere_says_what_to_type(run, tmp_path, monkeypatch, capsys):
    stop_early(run)
    age(run.out)
    monkeypatch.chdir(tmp_path)
    assert main(["pretrain", "--out", str(run.out), "--resume", "yes"]) == 1
    assert "photos, data of the run in" in (message := capsys.readouterr().err)
    assert f"is not there in {tmp_path}: if it has moved, add --data.root NEW_PATH" in message


def test_config_json_names_every_path_in_full(run, tmp_path):
    pretrain(replace(run, steps=1, out=tmp_path / "here" / "first"))
    probe = replace(run.online_probe, root=("photos",), every=100, samples=20)
    with pytest.raises(UserError):  # photos/ has no classes: the run has written its settings before it probes
        pretrain(replace(run, steps=1, init_from=Path("first"), online_probe=probe))
    saved = load_config(run.out)
    assert saved.data.root == saved.online_probe.root == (str(tmp_path / "here" / "photos"),)
    assert saved.init_from == tmp_path / "here" / "first"


def test_stages_name_data_in_full_and_earlier_stages_by_their_names(run, tmp_path):
    (tmp_path / "here" / "stage-1").mkdir()
    record_stages(Stages((run, replace(run, init_from=Path("stage-1")))), tmp_path / "system")
    first, second = load_stages(tmp_path / "system").runs
    assert first.data.root == (str(tmp_path / "here" / "photos"),) and second.init_from == Path("stage-1")


def test_features_are_computed_again_after_pixels_changed_in_place(tiny, tmp_path):
    """With --cache: the accuracy of pictures that were painted over cannot stay that of the old ones."""
    for kind, name in enumerate(("disc", "square")):
        fill(tmp_path / "x" / name, 12, kind, "bmp", side=32)
    pretrain(replace(tiny, steps=2))
    command = ["probe", str(tiny.out), "--data.root", str(tmp_path / "x"), "--probes", "knn", "--no-baselines"]
    command += ["--device", "cpu", "--precision", "fp32", "--cache", str(tmp_path / "cache")]
    assert main(command) == 0
    folders = set((tmp_path / "cache").iterdir())
    assert main(command) == 0 and set((tmp_path / "cache").iterdir()) == folders
    for file in sorted((tmp_path / "x").rglob("*.bmp")):
        change_pixels(file)
    assert main(command) == 0
    assert len(set((tmp_path / "cache").iterdir()) - folders) == len(folders)


def test_an_interrupted_embedding_of_changed_files_is_not_mixed(tiny, run, tmp_path, monkeypatch, capsys):
    from openjepa.cli import embed

    pretrain(replace(tiny, steps=1))
    command = ["embed", str(tiny.out), "photos", "--out", str(tmp_path / "x.npy"), "--device", "cpu"]
    monkeypatch.setattr(embed, "write_rows", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert main(command) == 130
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path / "here")
    change_pixels(tmp_path / "here" / "photos" / "000.bmp")
    assert main(command) == 1
    assert "contains features of another data: remove it" in capsys.readouterr().err


def test_two_test_sets_of_the_same_name_keep_their_scores(tiny, tmp_path):
    pretrain(replace(tiny, steps=1))
    for number, place in enumerate("ab"):
        for kind, name in enumerate(("disc", "square")):
            fill(tmp_path / place / "test" / name, 8, kind, "bmp", side=32, first=20 * number)
    for place in "abab":
        command = ["probe", str(tiny.out), "--data.root", str(tmp_path / place / "test"), "--probes", "logistic"]
        assert main([*command, "--no-baselines", "--device", "cpu", "--precision", "fp32"]) == 0
    names = {file.name for file in (tiny.out / "probes").iterdir()} - {MARK}
    ends = (".json", ".md", ".png", "-head.safetensors")
    assert names == {f"{stem}{end}" for stem in ("test", "b-test") for end in ends}


def test_a_report_of_runs_of_the_same_name_tells_them_apart(tiny, tmp_path):
    for place in "ab":
        pretrain(replace(tiny, steps=4, out=tmp_path / place / "exp"))
    runs, page = [str(tmp_path / place / "exp") for place in "ab"], tmp_path / "page.html"
    assert main(["report", *runs, "--out", str(page), "--no-pictures"]) == 0
    text = page.read_text()
    assert "<th>a/exp</th><th>b/exp</th>" in text and "a/exp · b/exp" in text
    assert main(["report", runs[0], f"{runs[0]}/../exp", "--out", str(page)]) == 1


def test_a_run_given_twice_is_not_compared(tiny, capsys):
    pretrain(replace(tiny, steps=1))
    assert main(["compare", str(tiny.out), f"{tiny.out}/", "--data.root", "x"]) == 1
    assert "given twice" in capsys.readouterr().err


def test_metrics_of_a_resumed_run_go_to_the_same_board(tiny, tmp_path, monkeypatch):
    said = tmp_path / "said.jsonl"
    (tmp_path / "stub").mkdir()
    (tmp_path / "stub" / "wandb.py").write_text(
        "import json, os\n\n\nclass Run:\n    def log(self, row, step=None):\n        pass\n\n\n"
        "def init(**asked):\n    with open(os.environ['SAID'], 'a') as stream:\n"
        "        stream.write(json.dumps(asked) + '\\n')\n    return Run()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "stub"))
    monkeypatch.setenv("SAID", str(said))
    for place in "ab":
        pretrain(replace(tiny, steps=2, loggers=("wandb",), out=tmp_path / place / "exp"))
    pretrain(replace(tiny, steps=4, loggers=("wandb",), out=tmp_path / "a" / "exp", resume="yes"))
    a, b, resumed = (json.loads(line) for line in said.read_text().splitlines())
    assert a["id"] == resumed["id"] != b["id"] and a["name"] == b["name"] == "exp"


def test_an_export_for_others_names_no_path_of_this_machine(tiny, tmp_path):
    pretrain(replace(tiny, steps=1))
    assert main(["export", str(tiny.out), "--format", "safetensors", "--out", str(tmp_path / "export")]) == 0
    text = (tmp_path / "export" / "config.json").read_text(encoding="utf-8")
    assert f'"{Path(tiny.data.root[0]).name}"' in text and str(Path(tiny.data.root[0]).parent) not in text
