"""The examples of docs/explained/architecture.md run together as plug-ins, and the page shows them as they are."""

import json
import re
from pathlib import Path

import pytest
import torch

from openjepa.cli.main import main
from openjepa.core.registry import PACKAGE, PLUGINS, find
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Layout
from openjepa.evaluation.scores import read_scores
from openjepa.interop.load import load
from openjepa.training.config import load_config
from openjepa.training.teachers import load_teacher
from tests.conftest import numbers
from tests.small import small
from tests.test_language import complaints, texts

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "explained" / "architecture.md").read_text()
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.py"))
PLUGIN = ["--plugin", *map(str, EXAMPLES)]
QUICK = ["--steps", "40", "--log-every", "5", "--device", "cpu", "--precision", "fp32", "--threads", "1", "--no-report"]
TASK = ["--data.labels", "glides-clean", "--device", "cpu", "--precision", "fp32"]


def state_of_package() -> dict[Path, int]:
    """Return when each file of the package was changed."""
    return {file: file.stat().st_mtime_ns for file in PACKAGE.rglob("*.py")}


@pytest.fixture(scope="module")
def system(registered, tmp_path_factory) -> Path:
    """Run the recipe of two stages for a few steps, with every example as a plug-in; no file of the package changes."""
    out, before = tmp_path_factory.mktemp("examples") / "tones", state_of_package()
    with pytest.MonkeyPatch.context() as patch:
        small(patch.setattr)
        assert main(["pretrain", "tones-distilled", *PLUGIN, "--out", str(out), *QUICK]) == 0
    assert state_of_package() == before
    return out


def log_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_the_page_shows_every_example_as_it_is():
    blocks = dict(re.findall(r"`docs/examples/(\w+\.py)`[^\n]*\n\n```python\n(.*?)```", PAGE, re.DOTALL))
    assert blocks.keys() == {file.name for file in EXAMPLES}
    for file in EXAMPLES:
        assert blocks[file.name] == file.read_text(), f"copy {file} into docs/explained/architecture.md again"
        assert len(file.read_text().splitlines()) <= 60


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_examples_are_plain_english(file):
    assert not [each for _, text in texts(file) for each in complaints(text)]


def test_every_kind_that_plugins_can_add_has_an_example(registered):
    assert main(["recipes", "tones-distilled", *PLUGIN]) == 0
    assert {kind for kind, _ in PLUGINS.registered} >= {"modality", "method", "masks", "probe", "task", "recipe"}


def test_both_stages_learn_and_the_second_from_the_first_ones_frozen_encoder(system):
    for stage, metric, share in (("stage-1", "relative_loss", 0.97), ("stage-2", "loss", 0.6)):
        first, *_, last = (each[metric] for each in log_of(system / stage))
        assert last < share * first, (stage, first, last)
    noted = json.loads((system / "stage-2" / "data.json").read_text())["teachers"]["teacher"]
    assert noted == load_teacher("teacher", str(system / "stage-1")).fingerprint
    student, teacher = (load(system / stage).network.state_dict() for stage in ("stage-2", "stage-1"))
    assert student.keys() == teacher.keys() and any(not torch.equal(student[key], teacher[key]) for key in teacher)


def test_config_json_names_the_classes_and_no_import_path(system):
    for stage, method in (("stage-1", "masked-l1"), ("stage-2", "imitate")):
        plain = json.loads((system / stage / "config.json").read_text())
        assert [plain[part]["type"] for part in ("data", "method", "masks")] == ["tones", method, "stripes"]
        text = json.dumps(plain)
        assert "openjepa" not in text and "examples" not in text.replace(str(system), "") and ".py" not in text
        assert type(load_config(system / stage).data) is find("modality", "tones")


def test_the_probe_measures_the_encoder_beside_its_baselines_on_the_task(system, tmp_path):
    probe = ["probe", str(system / "stage-2"), "--probes", "nearest-centroid", "--out", str(tmp_path)]
    assert main([*probe, *TASK, *PLUGIN]) == 0
    scores = read_scores(tmp_path / "glides-clean.json")["scores"]
    assert {(each.task, each.metric, each.unit) for each in scores} == {("glides-clean", "nearest centroid", "%")}
    value = {each.features: each.value for each in scores}
    assert value["raw values"] < 42 < value["this encoder"]  # chance is 33 %; after 600 steps: 98
    assert value["this encoder"] == pytest.approx(nearest_mean_accuracy(system / "stage-2"), abs=0.3)  # a tie or two


def nearest_mean_accuracy(folder: Path) -> float:
    """Compute the accuracy of the nearest class mean once more, sample by sample."""
    encoder = load(folder)
    train, test = (encoder.data.synthetic(500, seed) for seed in (1, 2))
    x, query = (encoder.pooled(each.read(torch.arange(500), None).views[0]) for each in (train, test))
    x, query = x / x.std(0), query / x.std(0)
    means = [x[train.label == each].mean(0) for each in range(3)]
    nearest = [min(range(3), key=lambda each: float((row - means[each]).norm())) for row in query]
    return 100 * sum(one == int(label) for one, label in zip(nearest, test.label, strict=True)) / 500


def test_the_modality_and_the_masks_work_with_a_method_of_the_package(registered, tmp_path):
    small = ["--method.encoder.dim", "24", "--method.encoder.depth", "1", "--method.encoder.num-heads", "2",
             "--method.predictor.dim", "24", "--method.predictor.depth", "1"]  # fmt: skip
    chosen = ["--modality", "tones", "--method", "jepa", "--masks", "stripes", "--masks.mask-ratio", "0.25"]
    assert main(["pretrain", *chosen, *small, *QUICK, "--steps", "2", "--out", str(tmp_path / "run"), *PLUGIN]) == 0
    assert load_config(tmp_path / "run").masks == find("masks", "stripes")(mask_ratio=0.25)


def test_stripes_hide_whole_columns_and_differ_between_samples(registered):
    (mask,) = find("masks", "stripes")(mask_ratio=0.25)(
        Layout.grid(4, 8), None, None, CounterRNG.of(0, 0, numbers(*range(16))), 0.0
    )
    hidden = (mask.target.flatten(1) % 8).sort(1).values
    assert torch.equal(hidden[:, ::4], hidden[:, 3::4])  # four rows of each hidden column
    both = torch.cat([mask.context, mask.target.flatten(1)], 1).sort(1).values
    assert torch.equal(both, torch.arange(32).expand(16, -1)) and len(hidden.unique(dim=0)) > 1
    assert find("masks", "stripes")(mask_ratio=0.25).shapes(Layout.grid(4, 8)) == [(24, 1, 8)]
