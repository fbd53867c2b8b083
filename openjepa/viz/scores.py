"""Print and write probe scores: tables, confusion matrix, accuracy against labels.   K classes"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from urllib.parse import quote

from jaxtyping import Int
from matplotlib.figure import Figure
from torch import Tensor

from openjepa.core.console import draw_safely, info
from openjepa.core.fileio import write_text
from openjepa.core.markdown import markdown_name
from openjepa.core.names import shorten
from openjepa.core.types import Score
from openjepa.evaluation.classifier import CLASSIFIER_SUFFIX, fold_classifier, save_classifier
from openjepa.evaluation.measure import Measurement, measure_encoders
from openjepa.evaluation.probes.logistic import LinearClassifier
from openjepa.evaluation.probing import ProbeResult
from openjepa.evaluation.result_files import ROOTS, absolute_roots, choose_name
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
)
from openjepa.evaluation.settings import ProbeSettings
from openjepa.interop.pretrained import PretrainedEncoder
from openjepa.viz.canvas import write_png
from openjepa.viz.text import MAX_NAME, adapt_texts, add_legend


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
    """Write the scores to `out` as JSON and Markdown, with the first encoder's classifier and plots, and print them.

    The files are named after the data; other data of that name keep theirs. Scores of other probes from earlier calls
    stay in the files if encoders and images are the same. Everything is on disk before anything is drawn or printed.
    """
    name, classes = choose_name(out, settings.data, result.about["images"]), result.split.train.classes
    title, scores = describe_split(result), [each.score for each in result.results]
    out.mkdir(parents=True, exist_ok=True)
    older, encoders = read_earlier_scores(out / f"{name}.json", result.about, result.encoders)
    new = {(each.features, each.metric) for each in scores}
    every = [*(each for each in older if (each.features, each.metric) not in new), *scores]
    about = {
        ROOTS: absolute_roots(settings.data.root or settings.data.test),
        "about": result.about,
        "encoders": encoders | result.encoders,
        "settings": json.loads(json.dumps(dataclasses.asdict(settings), default=str)),
        "split": title,
        "label_free": result.label_free,
    }
    write_scores(out / f"{name}.json", every, about)
    keep_classifier(result, classes, out / f"{name}{CLASSIFIER_SUFFIX}")
    text = f"# {markdown_name(name)}\n\n{title}\n\n{format_scores(every)}\n\n{format_label_free(result.label_free)}\n"
    file = write_text(out / f"{name}.md", text)
    parts = (lambda: confusion_section(result.results[0], classes, out / f"{name}.png"),
             lambda: label_curve_section(every, out / f"{name}-labels.png"))  # fmt: skip
    pictures = [draw_safely(f"a figure of {file}", part) or "" for part in parts]
    write_text(file, text + "".join(pictures))

    info(title)
    print_scores(scores, f"{describe_scores(scores)} (95 % interval)")
    print_label_free(result.label_free)
    info(f"written    {file}")


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
    legend = draw_safely("the confusion matrix", lambda: draw_confusion(table, classes, heading, out))
    picture = "" if legend is None else f"![confusion]({quote(out.name)})\n\n"
    names = f"In the figure: {'; '.join(map(markdown_name, legend.split('; ')))}.\n\n" if legend else ""
    return f"\n## {markdown_name(heading)}\n\n{picture}{names}{format_class_table(table, classes)}\n"


def label_curve_section(scores: list[Score], out: Path) -> str:
    """Draw accuracy against labels and return its section in Markdown; empty without several label counts."""
    file = draw_label_curve(scores, out)
    return f"\n## Accuracy against labels\n\n![accuracy against labels]({quote(file.name)})\n" if file else ""


def keep_classifier(result: Measurement, classes: tuple[str, ...], file: Path) -> None:
    """Save the linear classifier of the first encoder, if an evaluator fitted one."""
    encoder = result.results[0].score.features
    for score, evidence in result.results:
        if score.features == encoder and evidence and isinstance(evidence.model, LinearClassifier):
            save_classifier(fold_classifier(evidence.model, classes, result.encoders[encoder]), file)
            return


MAX_READABLE_CLASSES = 30  # with more classes names and percentages do not fit


def draw_confusion(table: Int[Tensor, "K K"], classes: tuple[str, ...], title: str, out: Path) -> str:
    """Draw the confusion matrix as PNG, each row normalized to sum to 1; return a legend of names that no font has."""
    share = table / table.sum(1, keepdim=True).clamp(min=1)
    side = min(12.0, 3.0 + 0.45 * len(classes))
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.add_subplot()
    figure.colorbar(
        axes.imshow(share.numpy(), cmap="viridis", vmin=0, vmax=1), ax=axes, label="fraction of the true class"
    )
    axes.set(title=shorten(title, 2 * MAX_NAME), xlabel="predicted class", ylabel="true class")
    if len(classes) <= MAX_READABLE_CLASSES:
        names = [shorten(each, MAX_NAME) for each in classes]
        axes.set_xticks(range(len(classes)), names, rotation=45, ha="right")
        axes.set_yticks(range(len(classes)), names)
        for row, column in ((r, c) for r in range(len(classes)) for c in range(len(classes))):
            value = float(share[row, column])
            color = "black" if value > 0.6 else "white"
            axes.text(column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=7, color=color)
    legend = adapt_texts(figure, "class")
    write_png(figure, out)
    return legend


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
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes, lines = figure.add_subplot(), {}
    groups = {label_group(each) for each in lowshot}
    for name, group in curve_groups(lowshot):
        curve = [each for each in lowshot if (each.features, label_group(each)) == (name, group)]
        curve.sort(key=label_count)
        labels, accuracies = [label_count(each) for each in curve], [each.value for each in curve]
        low, high = ([getattr(each, end) for each in curve] for end in ("low", "high"))
        (line,) = axes.plot(labels, accuracies, marker="o")
        lines[f"{name}, {group}" if len(groups) > 1 else name] = line
        axes.fill_between(labels, low, high, alpha=0.2, color=line.get_color())
    axes.set(xscale="log", xlabel="number of labels", ylabel="top-1 accuracy, %")
    axes.grid(alpha=0.25)
    add_legend(axes, [shorten(each, MAX_NAME) for each in lines], lines.values())
    return write_png(figure, out)
