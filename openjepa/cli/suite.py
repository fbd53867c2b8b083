"""Command `jepa suite`: measure an encoder on many tasks."""

from __future__ import annotations

import dataclasses
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

from openjepa.cli.settings import Probe, Suite
from openjepa.core.console import info, warn
from openjepa.core.distributed import is_main
from openjepa.core.errors import UserError
from openjepa.core.fileio import write_text
from openjepa.core.markdown import markdown_name
from openjepa.core.types import Score
from openjepa.evaluation.dense import DENSE_TASK, dense_scores, raw_patches
from openjepa.evaluation.labeled import find_task, labeled_fingerprint, split_labeled
from openjepa.evaluation.result_files import absolute_roots, results_folder
from openjepa.evaluation.scores import format_scores, print_scores, read_scores, write_scores
from openjepa.evaluation.settings import LabeledData
from openjepa.evaluation.suites import SUITES, SuiteTask
from openjepa.interop.adapters import load_any
from openjepa.interop.pretrained import PretrainedEncoder
from openjepa.training.device import choose_device
from openjepa.training.parallel.launch import process_group
from openjepa.viz.scores import measure_and_publish


def suite(settings: Suite) -> dict[str, list[Score]]:
    """Measure an encoder and its baselines on each task; print the scores and write them as one table.

    Skips tasks that an earlier call completed. Under torchrun all ranks compute features; rank 0 alone trains the
    probes while the others wait.
    """
    with process_group(choose_device(settings.device, settings.precision).device, timeout=timedelta(days=7)):
        return run_tasks(settings)


def describe_result(_: Suite, scores: dict[str, list[Score]]) -> dict[str, list[Score]]:
    """Return the scores of all tasks in the layout of all commands, for --json."""
    return {"scores": [each for part in scores.values() for each in part]}


def run_tasks(settings: Suite) -> dict[str, list[Score]]:
    """Run every task that has data, then write the table of all of them."""
    encoder = dataclasses.replace(load_any(settings.run, settings.encoder), name="this encoder")
    out = settings.out or results_folder(settings.run, "suite")
    folders = task_folders(settings)
    scores: dict[str, list[Score]] = {}
    for name, task in SUITES[settings.suite].items():
        if find_task(task.labels).needs_root and name not in folders:
            warn(f"skipping {name}: it needs data, give --folders {name}=FOLDER")
            continue
        scores[name] = run_task(name, task, folders.get(name, ()), encoder, settings, out)
    if not is_main():
        return scores
    compared = [encoder, *([encoder.untrained()] if encoder.untrained else [])]
    if settings.suite == "small":
        try:
            scores[DENSE_TASK] = all_dense_scores(compared, settings)
        except UserError as error:
            warn(f"skipping {DENSE_TASK}: {error}")
    text = "\n\n".join(f"## {markdown_name(name)}\n\n{format_scores(each)}" for name, each in scores.items())
    write_scores(out / f"{settings.suite}.json", [each for part in scores.values() for each in part], {})
    title = f"# {settings.suite}: {markdown_name(settings.run)}"
    file = write_text(out / f"{settings.suite}.md", f"{title}\n\n{text}\n")
    if DENSE_TASK in scores:
        print_scores(scores[DENSE_TASK], "patches of rendered scenes: R² of depth and box centers, mean IoU of shapes")
    info(f"written    {file}")
    return scores


def task_folders(settings: Suite) -> dict[str, tuple[str, ...]]:
    """Parse --folders. Raises UserError for a name that is not a task of the suite."""
    folders = {}
    for each in settings.folders:
        name, equals, folder = each.partition("=")
        if not equals or not folder.strip() or name not in SUITES[settings.suite]:
            raise UserError(f"--folders {each}: write NAME=FOLDER with one of {', '.join(SUITES[settings.suite])}")
        folders[name] = (folder,)
    return folders


def run_task(
    name: str, task: SuiteTask, root: tuple[str, ...], encoder: PretrainedEncoder, settings: Suite, out: Path
) -> list[Score]:
    """Return the scores of one task: read those of an identical earlier call, or else measure and write them."""
    data = LabeledData(root, task.labels, task.eval_crop)
    probe = Probe(
        run=settings.run, data=data, probes=task.probes, linear=task.linear, augment=task.augment, shots=task.shots,
        encoder=settings.encoder, cache=out / "features", seed=settings.seed, device=settings.device,
        precision=settings.precision,
    )  # fmt: skip
    split = split_labeled(encoder.data, data, settings.seed) if root else ()
    about = {
        "fingerprint": encoder.fingerprint,
        "images": [labeled_fingerprint(part) for part in split[:2]],
        **json.loads(json.dumps(dataclasses.asdict(probe), default=str)),
    }
    file = out / f"{name}.json"
    content = read_scores(file)
    if content.get("about") == about:
        info(f"{name}: already measured, skipped")
        return content["scores"]
    check_same_folder(file, name, content.get("about", {}), about)
    compared = [encoder, *([encoder.untrained()] if encoder.untrained else [])]
    scores = [each._replace(task=name) for each in measure_and_publish(compared, probe, out / name, pixels=True)]
    if is_main():
        write_scores(file, scores, {"about": about})
    return scores


def check_same_folder(file: Path, name: str, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise UserError if a file holds scores of this task on data of another place and with other contents."""
    roots = [each.get("data", {}).get("root") or () for each in (before, now)]
    if before and before.get("images") != now["images"] and absolute_roots(roots[0]) != absolute_roots(roots[1]):
        raise UserError(
            f"{file} holds scores of {name}={' '.join(roots[0])}, not of {' '.join(roots[1])}: "
            "give another --out, or remove it"
        )


def all_dense_scores(compared: list[PretrainedEncoder], settings: Suite) -> list[Score]:
    """Measure the dense tasks from each encoder's patch tokens and from raw pixels."""
    device, scores = choose_device(settings.device, settings.precision), []
    for encoder in (*compared, raw_patches(compared[0].data)):
        info(f"probing    {encoder.name}: depth, shape and box center of patches")
        scores += dense_scores(encoder, device, settings.seed)
    return scores
