"""Print and write probe scores: tables, confusion matrix, accuracy against labels.   K classes"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import matplotlib
from jaxtyping import Int
from matplotlib.figure import Figure
from torch import Tensor

from openjepa.core.console import info
from openjepa.core.types import Score
from openjepa.evaluation.classifier import CLASSIFIER_SUFFIX, fold_classifier, save_classifier
from openjepa.evaluation.measure import Measurement, measure_encoders
from openjepa.evaluation.probes.logistic import LinearClassifier
from openjepa.evaluation.probing import ProbeResult
from openjepa.evaluation.scores import (
    confusion_matrix,
    describe_scores,
    format_class_table,
    format_label_free,
    format_scores,
    print_label_free,
    print_scores,
    read_earlier_scores,
    write_scores,
    write_text,
)
from openjepa.evaluation.settings import ProbeSettings
from openjepa.interop.pretrained import PretrainedEncoder


def measure_and_publish(
    compared: list[PretrainedEncoder], settings: ProbeSettings, out: Path, pixels: bool
) -> list[Score]:
    """Measure encoders, print and write their scores, and return them; ranks other than 0 return an empty list."""
    result = measure_encoders(compared, settings, pixels)
    if result is None:
        return []
    publish_scores(result, settings, out)
    return [each.score for each in result.results]


def publish_scores(result: Measurement, settings: ProbeSettings, out: Path) -> None:
    """Print the scores and write them to `out` as JSON and Markdown, with plots and the first encoder's classifier.

    The files are named after the data. Scores of other probes from earlier calls stay in the files if encoders and
    images are the same.
    """
    name, classes = settings.data.name, result.split.train.classes
    title = describe_split(result)
    info(title)
    scores = [each.score for each in result.results]
    print_scores(scores, f"{describe_scores(scores)} (95 % interval)")
    print_label_free(result.label_free)

    out.mkdir(parents=True, exist_ok=True)
    older, encoders = read_earlier_scores(out / f"{name}.json", result.about, result.encoders)
    new = {(each.features, each.metric) for each in scores}
    scores = [*(each for each in older if (each.features, each.metric) not in new), *scores]
    text = f"# {name}\n\n{title}\n\n{format_scores(scores)}\n\n{format_label_free(result.label_free)}\n"
    text += confusion_section(result.results[0], classes, out / f"{name}.png")
    if file := draw_label_curve(scores, out / f"{name}-labels.png"):
        text += f"\n## Accuracy against labels\n\n![accuracy against labels]({file.name})\n"
    about = {
        "about": result.about,
        "encoders": encoders | result.encoders,
        "settings": json.loads(json.dumps(dataclasses.asdict(settings), default=str)),
        "split": title,
        "label_free": result.label_free,
    }
    keep_classifier(result, classes, out / f"{name}{CLASSIFIER_SUFFIX}")
    write_scores(out / f"{name}.json", scores, about)
    info(f"written    {write_text(out / f'{name}.md', text)}")


def describe_split(result: Measurement) -> str:
    """Return how many samples were used to train on and to test, in one line."""
    train, how, (trained, tested) = result.split.train, result.split.how, result.used
    classes = f"{len(train.classes)} classes, " if train.classes else ""
    if result.split.divided:
        return f"{classes}{trained:,} {result.plural} ({how})"
    return f"{classes}{trained:,} {result.plural} to train on, {tested:,} to test ({how})"


def confusion_section(first: ProbeResult, classes: tuple[str, ...], out: Path) -> str:
    """Draw the confusion matrix of a result and return its section in Markdown; empty without predictions."""
    if first.evidence is None:
        return ""
    table = confusion_matrix(first.evidence.predicted, first.evidence.truth, len(classes))
    heading = f"{first.score.features}, {first.score.metric}"
    file = draw_confusion(table, classes, heading, out)
    return f"\n## {heading}\n\n![confusion]({file.name})\n\n{format_class_table(table, classes)}\n"


def keep_classifier(result: Measurement, classes: tuple[str, ...], file: Path) -> None:
    """Save the linear classifier of the first encoder, if an evaluator fitted one."""
    encoder = result.results[0].score.features
    for score, evidence in result.results:
        if score.features == encoder and evidence and isinstance(evidence.model, LinearClassifier):
            save_classifier(fold_classifier(evidence.model, classes, result.encoders[encoder]), file)
            return


MAX_READABLE_CLASSES = 30  # with more classes names and percentages do not fit


def draw_confusion(table: Int[Tensor, "K K"], classes: tuple[str, ...], title: str, out: Path) -> Path:
    """Draw the confusion matrix as PNG, each row normalized to sum to 1, and return its path."""
    matplotlib.use("agg")
    share = table / table.sum(1, keepdim=True).clamp(min=1)
    side = min(12.0, 3.0 + 0.45 * len(classes))
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.add_subplot()
    figure.colorbar(
        axes.imshow(share.numpy(), cmap="viridis", vmin=0, vmax=1), ax=axes, label="fraction of the true class"
    )
    axes.set(title=title, xlabel="predicted class", ylabel="true class")
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
    """Return the features or the recipe that the labels were used with."""
    return score.chosen.get("kind") or score.chosen.get("recipe", "")


def curve_groups(scores: list[Score]) -> list[tuple[str, str]]:
    """Return the (encoder, features or recipe) pairs that get one curve each, in order of appearance."""
    return list(dict.fromkeys((each.features, label_group(each)) for each in scores))


def label_count(score: Score) -> int:
    """Return the number of labels that the score was measured with."""
    return score.chosen["labels"]


def draw_label_curve(scores: list[Score], out: Path) -> Path | None:
    """Draw accuracy against the number of labels as PNG with intervals; None with fewer than two label counts."""
    lowshot = [each for each in scores if "labels" in each.chosen]
    if len({each.chosen["labels"] for each in lowshot}) < 2:
        return None
    matplotlib.use("agg")
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    groups = {label_group(each) for each in lowshot}
    for name, group in curve_groups(lowshot):
        curve = [each for each in lowshot if (each.features, label_group(each)) == (name, group)]
        curve.sort(key=label_count)
        labels, accuracies = [label_count(each) for each in curve], [each.value for each in curve]
        low, high = ([getattr(each, end) for each in curve] for end in ("low", "high"))
        (line,) = axes.plot(labels, accuracies, marker="o", label=f"{name}, {group}" if len(groups) > 1 else name)
        axes.fill_between(labels, low, high, alpha=0.2, color=line.get_color())
    axes.set(xscale="log", xlabel="number of labels", ylabel="top-1 accuracy, %")
    axes.grid(alpha=0.25)
    axes.legend()
    figure.savefig(out, dpi=110)
    return out
