"""Command `jepa suite`: measure an encoder on many tasks."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal

import torch

from openjepa.cli.probe import Probe
from openjepa.core.arguments import Run
from openjepa.core.console import info, warn
from openjepa.core.distributed import is_main
from openjepa.core.errors import UserError
from openjepa.data.synthetic.scenes import render
from openjepa.evaluation.features import DatasetEncoder
from openjepa.evaluation.labeled import HELD_OUT, LabeledData, rendered_size, scene_dataset, split_labeled
from openjepa.evaluation.scores import (
    Score,
    label_free_markdown,
    print_label_free,
    read_scores,
    scores_markdown,
    write_text,
)
from openjepa.evaluation.suites import SCENES, SUITES, SuiteTask
from openjepa.evaluation.tasks.scenes import DenseScores, measure_dense, patch_labels
from openjepa.interop.adapters import EncoderAdapter, load_adapter
from openjepa.training.device import Precision, choose_device
from openjepa.training.parallel.launch import process_group
from openjepa.viz.scores import measure_and_publish


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Measures an encoder on all tasks of a suite whose folders are given."""

    run: Run  # a run, an export, a Hugging Face folder, hf:ID, or module:function
    suite: Literal["small", "paper"] = "small"
    folders: tuple[str, ...] = ()  # NAME=FOLDER for each task that needs one, as cifar10=data/cifar10
    encoder: Literal["target", "context"] = "target"
    out: Path | None = None  # folder of the results; by default suite/ in the run's folder
    seed: int = 0
    device: str = "auto"
    precision: Precision = "auto"


def suite(settings: Suite) -> dict[str, list[Score]]:
    """Scores of each task, the baselines beside them; printed, and written as one table. Tasks already done are kept.

    Under torchrun the processes share the embedding; the main one alone probes meanwhile, and the others wait.
    """
    with process_group(choose_device(settings.device, settings.precision).device, patience=timedelta(days=7)):
        return run_tasks(settings)


def run_tasks(settings: Suite) -> dict[str, list[Score]]:
    """All of them, then the table."""
    this = dataclasses.replace(load_adapter(settings.run, settings.encoder), name="this encoder")
    out = settings.out or (Path(settings.run) / "suite" if Path(settings.run).is_dir() else Path("suite"))
    folders = task_folders(settings)
    scores: dict[str, list[Score]] = {}
    for name, task in SUITES[settings.suite].items():
        if task.labels in ("folders", "clevr-count", "clevr-dist") and name not in folders:
            warn(f"{name} is left out: it has no folder; give --folders {name}=FOLDER")
            continue
        scores[name] = run_task(name, task, folders.get(name, ()), this, settings, out)
    if not is_main():
        return scores
    compared = [this, *([this.untrained()] if this.untrained else [])]
    rows = dense_scores(compared, settings) if settings.suite == "small" else {}
    text = "\n\n".join(f"## {name}\n\n{scores_markdown(found)}" for name, found in scores.items())
    if rows:
        print_label_free(rows, "patches of scenes: R² of depth, mean intersection over union of shapes")
        text += f"\n\n## Patches of scenes\n\n{label_free_markdown(rows)}"
    file = write_text(out / f"{settings.suite}.md", f"# {settings.suite}: {settings.run}\n\n{text}\n")
    info(f"written    {file}")
    return scores


def task_folders(settings: Suite) -> dict[str, tuple[str, ...]]:
    """The folders by name. Mistake for a name that the suite has not."""
    folders = {}
    for each in settings.folders:
        name, equals, folder = each.partition("=")
        if not equals or name not in SUITES[settings.suite]:
            raise UserError(f"{each} is not NAME=FOLDER with a name of {', '.join(SUITES[settings.suite])}")
        folders[name] = (folder,)
    return folders


def run_task(
    name: str, task: SuiteTask, root: tuple[str, ...], this: EncoderAdapter, settings: Suite, out: Path
) -> list[Score]:
    """One task's scores: those of an earlier call if it asked for the same of the same encoder, else measured and filed."""
    data = LabeledData(root, task.labels, task.eval_crop)
    asked = Probe(
        run=settings.run, data=data, probes=task.probes, linear=task.linear, augment=task.augment, shots=task.shots,
        encoder=settings.encoder, cache=out / "features", seed=settings.seed, device=settings.device, precision=settings.precision,
    )  # fmt: skip
    parts = split_labeled(this.data, data, settings.seed) if root else ()
    seen = [part.fingerprint for part in parts[:2]]
    about = {
        "encoder": this.fingerprint,
        "images": seen,
        **json.loads(json.dumps(dataclasses.asdict(asked), default=str)),
    }
    file = out / f"{name}.json"
    content = read_scores(file)
    if content.get("about") == about:
        info(f"{name}: done before, kept")
        return content["scores"]
    compared = [this, *([this.untrained()] if this.untrained else [])]
    scores = measure_and_publish(compared, asked, out / name, pixels=True)
    if is_main():
        write_text(file, json.dumps({"about": about, "scores": [each._asdict() for each in scores]}, indent=1))
    return scores


def dense_scores(compared: list[EncoderAdapter], settings: Suite) -> dict[str, dict[str, float]]:
    """Depth and segmentation of rendered scenes from each encoder's patch tokens, and from the patches' own pixels."""
    own = compared[0].data
    pixels = EncoderAdapter("raw pixels", own, torch.nn.Identity(), lambda view: (own.tokens(view).x,))
    rows = {}
    for each in (*compared, pixels):
        info(f"probing    {each.name}: depth and shape of patches")
        rows[each.name] = dense_scores_of(each, settings)._asdict()
    return rows


def dense_scores_of(each: EncoderAdapter, settings: Suite) -> DenseScores:
    """The dense tasks for one encoder."""
    where, parts = choose_device(settings.device, settings.precision), []
    each.network.to(where.device).eval()
    for count, first in zip(SCENES, (0, HELD_OUT), strict=True):
        scenes = render(count, rendered_size(each.data), settings.seed, first)
        viewer = DatasetEncoder(each, scene_dataset(scenes, each.data, scenes.count, "scenes"), where)
        seen = torch.cat([viewer.encode(index).patches.cpu() for index in torch.arange(count).split(256)])
        parts.append((seen.flatten(0, 1), patch_labels(scenes, each.data.grid)))
    train, test = parts
    return measure_dense(train, test, settings.seed)
