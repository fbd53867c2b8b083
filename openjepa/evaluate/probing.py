"""`jepa probe` and `jepa compare`: what simple classifiers make of features, beside honest baselines."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from openjepa.core.arguments import Run, Runs
from openjepa.core.console import info
from openjepa.core.errors import UserError
from openjepa.evaluate.report import curve, picture
from openjepa.evaluation.classifier import SUFFIX, fold_classifier, save_classifier
from openjepa.evaluation.labeled import Split
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
from openjepa.interop.adapters import load_adapter


@dataclass(frozen=True, kw_only=True)
class Probe(ProbeSettings):
    """Measures an encoder on a labelled folder."""

    run: Run  # a run, an export, a Hugging Face folder, hf:ID, or module:function
    baselines: bool = True  # also the encoder before training, and raw pixels
    out: Path | None = None  # folder of the results; by default probes/ in the run's folder


@dataclass(frozen=True, kw_only=True)
class Compare(ProbeSettings):
    """Measures several encoders on one labelled folder, in one table."""

    runs: Runs  # each as for probe
    out: Path = Path("comparison")  # folder of the results


def probe(settings: Probe) -> list[Score]:
    """Accuracies of the encoder and of its baselines; printed, and written with a confusion matrix to RUN/probes."""
    this = dataclasses.replace(load_adapter(settings.run, settings.which), name="this encoder")
    compared = [this]
    if settings.baselines and this.untrained:
        compared.append(this.untrained())
    folder = Path(settings.run)
    out = settings.out or (folder / "probes" if folder.is_dir() else Path("probes"))
    return measure_encoders(compared, settings, out, pixels=settings.baselines)


def compare(settings: Compare) -> list[Score]:
    """Accuracies of several encoders in one table, raw pixels beside them; printed and written."""
    if not settings.runs:
        raise UserError("nothing to compare: name runs, Hugging Face folders, hf:ID or module:function")
    compared = [dataclasses.replace(load_adapter(run, settings.which), name=run) for run in settings.runs]
    return measure_encoders(compared, settings, settings.out, pixels=True)


def publish(result: Measurement, data: Split, settings: ProbeSettings, out: Path) -> None:
    """Prints the tables; writes them as JSON and Markdown, with the first score's confusion matrix, named as the data.

    What an earlier call found by other probes of the same encoders on the same images stays in the files.
    """
    (train, test, how), first = data, result.found[0]
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
        drawn = picture(table, classes, of, out / f"{name}.png")
        text += f"\n## {of}\n\n![confusion]({drawn.name})\n\n{class_table(table, classes)}\n"
    if drawn := curve(scores, out / f"{name}-labels.png"):
        text += f"\n## Accuracy against labels\n\n![accuracy against labels]({drawn.name})\n"
    asked = {"settings": json.loads(json.dumps(dataclasses.asdict(settings), default=str)), "split": title}
    about = {"about": result.about, "encoders": encoders | result.encoders, **asked, "label_free": result.free}
    kept = next((each for each in result.found if each.model and each.score.features == first.score.features), None)
    if kept and kept.model:
        encoder = result.encoders[kept.score.features]
        save_classifier(fold_classifier(kept.model, classes, encoder), out / f"{name}{SUFFIX}")
    file = write_scores(out, name, about, scores, text)
    info(f"written    {file}")
