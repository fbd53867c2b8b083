"""Scores with their uncertainty, as a table, Markdown, JSON and a picture.   R test samples  K classes"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import torch
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from rich.table import Column, Table
from torch import Tensor

from openjepa.core.console import console
from openjepa.core.errors import UserError
from openjepa.core.fileio import atomic_write

RESAMPLES = 1000  # of the bootstrap

READABLE = 30  # classes whose names and counts are still read in a picture


class Score(NamedTuple):
    """Top-1 accuracy in [0, 1] of one probe on one kind of features, on test data that nothing was trained on."""

    features: str
    probe: str
    accuracy: float
    low: float  # 95 % interval: bootstrap over test images, of several draws over the draws
    high: float
    chosen: dict[str, Any] = {}  # noqa: RUF012 (a NamedTuple's default is never written to)


def interval(values: Float[Tensor, "R"], seed: int = 0) -> tuple[float, float]:
    """The middle 95 % of the mean of `values` drawn again with replacement (percentile bootstrap, 1,000 times)."""
    generator = torch.Generator().manual_seed(seed)
    means = [values[torch.randint(len(values), (len(values),), generator=generator)].mean() for _ in range(RESAMPLES)]
    low, high = torch.stack(means).quantile(torch.tensor([0.025, 0.975], dtype=values.dtype)).tolist()
    return low, high


def confusion(predicted: Int[Tensor, "R"], truth: Int[Tensor, "R"], classes: int) -> Int[Tensor, "K K"]:
    """How often each true class (row) was taken for each class (column)."""
    return torch.bincount(truth * classes + predicted, minlength=classes * classes).view(classes, classes)


def show(scores: list[Score], title: str) -> None:
    """A row for each kind of features, a column for each probe."""
    names, probes = unique(scores)
    table = Table(Column("features", no_wrap=True), *(f"{probe} %" for probe in probes), title=title)
    for name in names:
        table.add_row(name, *(cell(scores, name, probe) for probe in probes))
    console.print(table)


def markdown(scores: list[Score]) -> str:
    names, probes = unique(scores)
    head = [
        "| " + " | ".join(["features", *(f"{probe} %" for probe in probes)]) + " |",
        "|---" * (len(probes) + 1) + "|",
    ]
    return "\n".join(
        [*head, *("| " + " | ".join([name, *(cell(scores, name, probe) for probe in probes)]) + " |" for name in names)]
    )


def show_free(free: dict[str, dict[str, float]], title: str = "without labels") -> None:
    """Numbers that are not accuracies: a row for each encoder."""
    names = list(next(iter(free.values())))
    table = Table(Column("features", no_wrap=True), *(name.replace("_", " ") for name in names), title=title)
    for name, values in free.items():
        table.add_row(name, *(f"{values[each]:.3g}" for each in names))
    console.print(table)


def markdown_free(free: dict[str, dict[str, float]]) -> str:
    names = list(next(iter(free.values())))
    head = ["| " + " | ".join(["features", *names]) + " |", "|---" * (len(names) + 1) + "|"]
    rows = [
        f"| {name} | " + " | ".join(f"{values[each]:.3g}" for each in names) + " |" for name, values in free.items()
    ]
    return "\n".join([*head, *rows])


def unique(scores: list[Score]) -> tuple[list[str], list[str]]:
    return list(dict.fromkeys(each.features for each in scores)), list(dict.fromkeys(each.probe for each in scores))


def cell(scores: list[Score], name: str, probe: str) -> str:
    for each in scores:
        if (each.features, each.probe) == (name, probe):
            return f"{100 * each.accuracy:.1f} ({100 * each.low:.1f}–{100 * each.high:.1f})"
    return ""


def per_class(table: Int[Tensor, "K K"], classes: tuple[str, ...]) -> str:
    """Markdown: how many of each class were known, and what it was taken for most."""
    lines = ["| class | test images | known % | taken for most |", "|---|---|---|---|"]
    wrong = table.clone().fill_diagonal_(0)
    for number, name in enumerate(classes):
        count, worst = int(table[number].sum()), int(wrong[number].argmax())
        known = f"{100 * int(table[number, number]) / count:.1f}" if count else "–"
        lines.append(f"| {name} | {count} | {known} | {classes[worst] if wrong[number, worst] else '–'} |")
    return "\n".join(lines)


def picture(table: Int[Tensor, "K K"], classes: tuple[str, ...], title: str, out: Path) -> Path:
    """The confusion matrix as PNG, each row as shares of its true class."""
    matplotlib.use("agg")
    share = table / table.sum(1, keepdim=True).clamp(min=1)
    side = min(12.0, 3.0 + 0.45 * len(classes))
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.add_subplot()
    figure.colorbar(
        axes.imshow(share.numpy(), cmap="viridis", vmin=0, vmax=1), ax=axes, label="share of the true class"
    )
    axes.set(title=title, xlabel="taken for", ylabel="true class")
    if len(classes) <= READABLE:
        axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
        axes.set_yticks(range(len(classes)), classes)
        for row, column in ((r, c) for r in range(len(classes)) for c in range(len(classes))):
            value = float(share[row, column])
            axes.text(
                column,
                row,
                f"{100 * value:.0f}",
                ha="center",
                va="center",
                fontsize=7,
                color="black" if value > 0.6 else "white",
            )
    figure.savefig(out, dpi=110)
    return out


def of(score: Score) -> str:
    """By which features or recipe labels were used."""
    return score.chosen.get("kind") or score.chosen.get("recipe", "")


def lines(scores: list[Score]) -> list[tuple[str, str]]:
    """What belongs together in a curve."""
    return list(dict.fromkeys((each.features, of(each)) for each in scores))


def of_labels(score: Score) -> int:
    return score.chosen["labels"]


def curve(scores: list[Score], out: Path) -> Path | None:
    """Accuracy against the number of labels as PNG, with intervals; None where fewer than two numbers were tried."""
    tried = [each for each in scores if "labels" in each.chosen]
    if len({each.chosen["labels"] for each in tried}) < 2:
        return None
    matplotlib.use("agg")
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    ways = {of(each) for each in tried}
    for name, way in lines(tried):
        mine = sorted((each for each in tried if (each.features, of(each)) == (name, way)), key=of_labels)
        labels, heights = [of_labels(each) for each in mine], [100 * each.accuracy for each in mine]
        low, high = ([100 * getattr(each, end) for each in mine] for end in ("low", "high"))
        (line,) = axes.plot(labels, heights, marker="o", label=f"{name}, {way}" if len(ways) > 1 else name)
        axes.fill_between(labels, low, high, alpha=0.2, color=line.get_color())
    axes.set(xscale="log", xlabel="labels in all", ylabel="top-1 accuracy, %")
    axes.grid(alpha=0.25)
    axes.legend()
    figure.savefig(out, dpi=110)
    return out


def write(folder: Path, name: str, about: dict[str, Any], scores: list[Score], text: str) -> Path:
    """name.json and name.md in a folder, each whole or not at all; the path of the Markdown."""
    content = {**about, "scores": [each._asdict() for each in scores]}
    whole(folder / f"{name}.json", json.dumps(content, indent=1, ensure_ascii=False))
    return whole(folder / f"{name}.md", text)


def earlier(file: Path, about: dict[str, Any], encoders: dict[str, str]) -> tuple[list[Score], dict[str, str]]:
    """The scores of an earlier call and its encoders: all if they were measured alike and no encoder has changed, or none."""
    content = read(file)
    theirs = content.get("encoders", {})
    changed = any(theirs[name] != encoders[name] for name in theirs.keys() & encoders.keys())
    if content.get("about") != about or changed:
        return [], {}
    return content["scores"], theirs


def read(file: Path) -> dict[str, Any]:
    """What a file of scores says; nothing if there is none. Mistake if it is broken."""
    try:
        content = json.loads(file.read_text()) if file.exists() else {}
        return {**content, "scores": [Score(**each) for each in content.get("scores", [])]}
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{file} cannot be read ({error}): move it away, and it is made again") from error


def whole(file: Path, text: str) -> Path:
    """Writes a file that appears whole or not at all."""
    with atomic_write(file) as temporary:
        temporary.write_text(text)
    return file
