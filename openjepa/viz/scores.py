"""Print and write the tables and pictures of probe scores."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import matplotlib
from jaxtyping import Int
from matplotlib.figure import Figure
from torch import Tensor

from openjepa.core.console import info
from openjepa.evaluation.classifier import SUFFIX, fold_classifier, save_classifier
from openjepa.evaluation.measure import Measurement, measure_encoders
from openjepa.evaluation.probing import ProbeSettings
from openjepa.evaluation.scores import (
    Score,
    class_table,
    confusion_matrix,
    label_free_markdown,
    print_label_free,
    print_scores,
    read_earlier_scores,
    scores_markdown,
    write_scores,
)
from openjepa.interop.adapters import EncoderAdapter


def measure_and_publish(
    compared: list[EncoderAdapter], settings: ProbeSettings, out: Path, pixels: bool
) -> list[Score]:
    """Measure encoders, print and write their scores; empty on all ranks but the main one."""
    result = measure_encoders(compared, settings, pixels)
    if result is None:
        return []
    publish_scores(result, settings, out)
    return [each.score for each in result.found]


def publish_scores(result: Measurement, settings: ProbeSettings, out: Path) -> None:
    """Prints the tables; writes them as JSON and Markdown, with the first score's confusion matrix, named as the data.

    What an earlier call found by other probes of the same encoders on the same images stays in the files.
    """
    (train, test, how), first = result.data, result.found[0]
    name, classes = settings.data.name, train.classes
    title = f"{len(classes)} classes, {len(train):,} images to train on, {len(test):,} to test ({how})"
    info(title)
    scores = [each.score for each in result.found]
    print_scores(scores, "top-1 accuracy on test images (95 % interval)")
    print_label_free(result.free)

    out.mkdir(parents=True, exist_ok=True)
    older, encoders = read_earlier_scores(out / f"{name}.json", result.about, result.encoders)
    new = {(each.features, each.probe) for each in scores}
    scores = [*(each for each in older if (each.features, each.probe) not in new), *scores]
    text = f"# {name}\n\n{title}\n\n{scores_markdown(scores)}\n\n{label_free_markdown(result.free)}\n"
    if first.predicted is not None:
        table, of = (
            confusion_matrix(first.predicted, first.truth, len(classes)),
            f"{first.score.features}, {first.score.probe}",
        )
        drawn = draw_confusion(table, classes, of, out / f"{name}.png")
        text += f"\n## {of}\n\n![confusion]({drawn.name})\n\n{class_table(table, classes)}\n"
    if drawn := draw_label_curve(scores, out / f"{name}-labels.png"):
        text += f"\n## Accuracy against labels\n\n![accuracy against labels]({drawn.name})\n"
    asked = {"settings": json.loads(json.dumps(dataclasses.asdict(settings), default=str)), "split": title}
    about = {"about": result.about, "encoders": encoders | result.encoders, **asked, "label_free": result.free}
    kept = next((each for each in result.found if each.model and each.score.features == first.score.features), None)
    if kept and kept.model:
        encoder = result.encoders[kept.score.features]
        save_classifier(fold_classifier(kept.model, classes, encoder), out / f"{name}{SUFFIX}")
    file = write_scores(out, name, about, scores, text)
    info(f"written    {file}")


MAX_READABLE_CLASSES = 30  # classes whose names and counts are still read in a picture


def draw_confusion(table: Int[Tensor, "K K"], classes: tuple[str, ...], title: str, out: Path) -> Path:
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
    if len(classes) <= MAX_READABLE_CLASSES:
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


def label_group(score: Score) -> str:
    """By which features or recipe labels were used."""
    return score.chosen.get("kind") or score.chosen.get("recipe", "")


def curve_groups(scores: list[Score]) -> list[tuple[str, str]]:
    """What belongs together in a curve."""
    return list(dict.fromkeys((each.features, label_group(each)) for each in scores))


def is_lowshot(score: Score) -> int:
    return score.chosen["labels"]


def draw_label_curve(scores: list[Score], out: Path) -> Path | None:
    """Accuracy against the number of labels as PNG, with intervals; None where fewer than two numbers were tried."""
    tried = [each for each in scores if "labels" in each.chosen]
    if len({each.chosen["labels"] for each in tried}) < 2:
        return None
    matplotlib.use("agg")
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    ways = {label_group(each) for each in tried}
    for name, way in curve_groups(tried):
        mine = sorted((each for each in tried if (each.features, label_group(each)) == (name, way)), key=is_lowshot)
        labels, heights = [is_lowshot(each) for each in mine], [100 * each.accuracy for each in mine]
        low, high = ([100 * getattr(each, end) for each in mine] for end in ("low", "high"))
        (line,) = axes.plot(labels, heights, marker="o", label=f"{name}, {way}" if len(ways) > 1 else name)
        axes.fill_between(labels, low, high, alpha=0.2, color=line.get_color())
    axes.set(xscale="log", xlabel="labels in all", ylabel="top-1 accuracy, %")
    axes.grid(alpha=0.25)
    axes.legend()
    figure.savefig(out, dpi=110)
    return out
