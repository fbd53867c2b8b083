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

RESAMPLES = 1000  # bootstrap resamples


class Score(NamedTuple):
    """Top-1 accuracy in [0, 1] of one probe on one encoder's features of held-out test data."""

    features: str
    probe: str
    accuracy: float
    low: float  # 95 % interval: bootstrap over test images or, with several label subsets, over the subsets
    high: float
    chosen: dict[str, Any] = {}  # noqa: RUF012 (a NamedTuple's default is never written to)


def bootstrap_interval(values: Float[Tensor, "R"], seed: int = 0) -> tuple[float, float]:
    """Return the 95 % interval of the mean of `values` by the percentile bootstrap with 1,000 resamples."""
    generator = torch.Generator().manual_seed(seed)
    means = [values[torch.randint(len(values), (len(values),), generator=generator)].mean() for _ in range(RESAMPLES)]
    low, high = torch.stack(means).quantile(torch.tensor([0.025, 0.975], dtype=values.dtype)).tolist()
    return low, high


def confusion_matrix(predicted: Int[Tensor, "R"], truth: Int[Tensor, "R"], classes: int) -> Int[Tensor, "K K"]:
    """Count predictions: row = true class, column = predicted class."""
    return torch.bincount(truth * classes + predicted, minlength=classes * classes).view(classes, classes)


def print_scores(scores: list[Score], title: str) -> None:
    """Print a table with a row per encoder and a column per probe."""
    names, probes = table_axes(scores)
    table = Table(Column("features", no_wrap=True), *(f"{probe} %" for probe in probes), title=title)
    for name in names:
        table.add_row(name, *(format_cell(scores, name, probe) for probe in probes))
    console.print(table)


def format_scores(scores: list[Score]) -> str:
    """Format the table of `print_scores` as Markdown."""
    names, probes = table_axes(scores)
    rows = [["features", *(f"{probe} %" for probe in probes)]]
    rows += [[name, *(format_cell(scores, name, probe) for probe in probes)] for name in names]
    head, *body = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([head, "|---" * (len(probes) + 1) + "|", *body])


def print_label_free(free: dict[str, dict[str, float]], title: str = "without labels") -> None:
    """Print a table of metrics that are not accuracies, with a row per encoder."""
    names = list(next(iter(free.values())))
    table = Table(Column("features", no_wrap=True), *(name.replace("_", " ") for name in names), title=title)
    for name, values in free.items():
        table.add_row(name, *(f"{values[each]:.3g}" for each in names))
    console.print(table)


def format_label_free(free: dict[str, dict[str, float]]) -> str:
    """Format the table of `print_label_free` as Markdown."""
    names = list(next(iter(free.values())))
    head = ["| " + " | ".join(["features", *names]) + " |", "|---" * (len(names) + 1) + "|"]
    rows = [
        f"| {name} | " + " | ".join(f"{values[each]:.3g}" for each in names) + " |" for name, values in free.items()
    ]
    return "\n".join([*head, *rows])


def table_axes(scores: list[Score]) -> tuple[list[str], list[str]]:
    """Return the rows (features) and the columns (probes) of a table of scores, in order of appearance."""
    return list(dict.fromkeys(each.features for each in scores)), list(dict.fromkeys(each.probe for each in scores))


def format_cell(scores: list[Score], name: str, probe: str) -> str:
    """Format one accuracy in percent with its interval; empty if it was not measured."""
    for each in scores:
        if (each.features, each.probe) == (name, probe):
            return f"{100 * each.accuracy:.1f} ({100 * each.low:.1f}–{100 * each.high:.1f})"
    return ""


def format_class_table(table: Int[Tensor, "K K"], classes: tuple[str, ...]) -> str:
    """Format each class's accuracy and its most frequent confusion as Markdown."""
    lines = ["| class | test images | correct % | most confused with |", "|---|---|---|---|"]
    wrong = table.clone().fill_diagonal_(0)
    for number, name in enumerate(classes):
        count, worst = int(table[number].sum()), int(wrong[number].argmax())
        correct = f"{100 * int(table[number, number]) / count:.1f}" if count else "–"
        lines.append(f"| {name} | {count} | {correct} | {classes[worst] if wrong[number, worst] else '–'} |")
    return "\n".join(lines)


def write_scores(folder: Path, name: str, metadata: dict[str, Any], scores: list[Score], text: str) -> Path:
    """Write NAME.json and NAME.md to a folder, each atomically; return the path of the Markdown."""
    content = {**metadata, "scores": [each._asdict() for each in scores]}
    write_text(folder / f"{name}.json", json.dumps(content, indent=1, ensure_ascii=False))
    return write_text(folder / f"{name}.md", text)


def read_earlier_scores(
    file: Path, about: dict[str, Any], encoders: dict[str, str]
) -> tuple[list[Score], dict[str, str]]:
    """Read an earlier call's scores and encoder fingerprints.

    Both are empty unless the earlier call had the same `about` and no encoder of the same name has changed.
    """
    content = read_scores(file)
    earlier = content.get("encoders", {})
    changed = any(earlier[name] != encoders[name] for name in earlier.keys() & encoders.keys())
    if content.get("about") != about or changed:
        return [], {}
    return content["scores"], earlier


def read_scores(file: Path) -> dict[str, Any]:
    """Read a file of scores; return no scores if it does not exist. Raises UserError if it is damaged."""
    try:
        content = json.loads(file.read_text()) if file.exists() else {}
        return {**content, "scores": [Score(**each) for each in content.get("scores", [])]}
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{file} is damaged ({error}): remove it, and the next call writes a new one") from error


def write_text(file: Path, text: str) -> Path:
    """Write a text file atomically and return its path."""
    with atomic_write(file) as temporary:
        temporary.write_text(text)
    return file
