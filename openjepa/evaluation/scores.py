"""Scores with confidence intervals, as tables, Markdown and JSON.   R test samples  K classes"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from rich.table import Column, Table
from torch import Tensor

from openjepa.core.console import console
from openjepa.core.errors import UserError
from openjepa.core.fileio import atomic_write

RESAMPLES = 1000  # of the bootstrap


class Score(NamedTuple):
    """Top-1 accuracy in [0, 1] of one probe on one kind of features, on test data that nothing was trained on."""

    features: str
    probe: str
    accuracy: float
    low: float  # 95 % interval: bootstrap over test images, of several draws over the draws
    high: float
    chosen: dict[str, Any] = {}  # noqa: RUF012 (a NamedTuple's default is never written to)


def bootstrap_interval(values: Float[Tensor, "R"], seed: int = 0) -> tuple[float, float]:
    """The middle 95 % of the mean of `values` drawn again with replacement (percentile bootstrap, 1,000 times)."""
    generator = torch.Generator().manual_seed(seed)
    means = [values[torch.randint(len(values), (len(values),), generator=generator)].mean() for _ in range(RESAMPLES)]
    low, high = torch.stack(means).quantile(torch.tensor([0.025, 0.975], dtype=values.dtype)).tolist()
    return low, high


def confusion_matrix(predicted: Int[Tensor, "R"], truth: Int[Tensor, "R"], classes: int) -> Int[Tensor, "K K"]:
    """How often each true class (row) was taken for each class (column)."""
    return torch.bincount(truth * classes + predicted, minlength=classes * classes).view(classes, classes)


def print_scores(scores: list[Score], title: str) -> None:
    """A row for each kind of features, a column for each probe."""
    names, probes = distinct_probes(scores)
    table = Table(Column("features", no_wrap=True), *(f"{probe} %" for probe in probes), title=title)
    for name in names:
        table.add_row(name, *(score_cell(scores, name, probe) for probe in probes))
    console.print(table)


def scores_markdown(scores: list[Score]) -> str:
    names, probes = distinct_probes(scores)
    head = [
        "| " + " | ".join(["features", *(f"{probe} %" for probe in probes)]) + " |",
        "|---" * (len(probes) + 1) + "|",
    ]
    return "\n".join(
        [
            *head,
            *(
                "| " + " | ".join([name, *(score_cell(scores, name, probe) for probe in probes)]) + " |"
                for name in names
            ),
        ]
    )


def print_label_free(free: dict[str, dict[str, float]], title: str = "without labels") -> None:
    """Numbers that are not accuracies: a row for each encoder."""
    names = list(next(iter(free.values())))
    table = Table(Column("features", no_wrap=True), *(name.replace("_", " ") for name in names), title=title)
    for name, values in free.items():
        table.add_row(name, *(f"{values[each]:.3g}" for each in names))
    console.print(table)


def label_free_markdown(free: dict[str, dict[str, float]]) -> str:
    names = list(next(iter(free.values())))
    head = ["| " + " | ".join(["features", *names]) + " |", "|---" * (len(names) + 1) + "|"]
    rows = [
        f"| {name} | " + " | ".join(f"{values[each]:.3g}" for each in names) + " |" for name, values in free.items()
    ]
    return "\n".join([*head, *rows])


def distinct_probes(scores: list[Score]) -> tuple[list[str], list[str]]:
    return list(dict.fromkeys(each.features for each in scores)), list(dict.fromkeys(each.probe for each in scores))


def score_cell(scores: list[Score], name: str, probe: str) -> str:
    for each in scores:
        if (each.features, each.probe) == (name, probe):
            return f"{100 * each.accuracy:.1f} ({100 * each.low:.1f}–{100 * each.high:.1f})"
    return ""


def class_table(table: Int[Tensor, "K K"], classes: tuple[str, ...]) -> str:
    """Markdown: how many of each class were known, and what it was taken for most."""
    lines = ["| class | test images | known % | taken for most |", "|---|---|---|---|"]
    wrong = table.clone().fill_diagonal_(0)
    for number, name in enumerate(classes):
        count, worst = int(table[number].sum()), int(wrong[number].argmax())
        known = f"{100 * int(table[number, number]) / count:.1f}" if count else "–"
        lines.append(f"| {name} | {count} | {known} | {classes[worst] if wrong[number, worst] else '–'} |")
    return "\n".join(lines)


def write_scores(folder: Path, name: str, about: dict[str, Any], scores: list[Score], text: str) -> Path:
    """name.json and name.md in a folder, each whole or not at all; the path of the Markdown."""
    content = {**about, "scores": [each._asdict() for each in scores]}
    write_text(folder / f"{name}.json", json.dumps(content, indent=1, ensure_ascii=False))
    return write_text(folder / f"{name}.md", text)


def read_earlier_scores(
    file: Path, about: dict[str, Any], encoders: dict[str, str]
) -> tuple[list[Score], dict[str, str]]:
    """The scores of an earlier call and its encoders: all if they were measured alike and no encoder has changed, or none."""
    content = read_scores(file)
    theirs = content.get("encoders", {})
    changed = any(theirs[name] != encoders[name] for name in theirs.keys() & encoders.keys())
    if content.get("about") != about or changed:
        return [], {}
    return content["scores"], theirs


def read_scores(file: Path) -> dict[str, Any]:
    """What a file of scores says; nothing if there is none. Mistake if it is broken."""
    try:
        content = json.loads(file.read_text()) if file.exists() else {}
        return {**content, "scores": [Score(**each) for each in content.get("scores", [])]}
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{file} cannot be read ({error}): move it away, and it is made again") from error


def write_text(file: Path, text: str) -> Path:
    """Writes a file that appears whole or not at all."""
    with atomic_write(file) as temporary:
        temporary.write_text(text)
    return file
