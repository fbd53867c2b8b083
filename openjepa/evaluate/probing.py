"""`jepa probe` and `jepa compare`: what simple classifiers make of features, beside honest baselines."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from openjepa.core.arguments import Run, Runs
from openjepa.core.console import info
from openjepa.core.distributed import is_main, rank_and_size
from openjepa.core.errors import UserError
from openjepa.core.protocols import Dataset
from openjepa.evaluate.embed import Features, Viewer, embed, raw
from openjepa.evaluate.heads import SUFFIX, head_of, save
from openjepa.evaluate.labelled import Split, split
from openjepa.evaluate.probes import Found, Parts, Settings, Subject, Viewers, scores_of
from openjepa.evaluate.report import (
    Score,
    confusion,
    curve,
    earlier,
    markdown,
    markdown_free,
    per_class,
    picture,
    show,
    show_free,
    write,
)
from openjepa.evaluate.spectrum import meters
from openjepa.interop.adapters import POOLED_KINDS, EncoderAdapter, PooledKind, load_adapter
from openjepa.training.device import Device, choose_device
from openjepa.training.parallel.launch import process_group


@dataclass(frozen=True, kw_only=True)
class Probe(Settings):
    """Measures an encoder on a labelled folder."""

    run: Run  # a run, an export, a Hugging Face folder, hf:ID, or module:function
    baselines: bool = True  # also the encoder before training, and raw pixels
    out: Path | None = None  # folder of the results; by default probes/ in the run's folder


@dataclass(frozen=True, kw_only=True)
class Compare(Settings):
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
    return measured(compared, settings, out, pixels=settings.baselines)


def compare(settings: Compare) -> list[Score]:
    """Accuracies of several encoders in one table, raw pixels beside them; printed and written."""
    if not settings.runs:
        raise UserError("nothing to compare: name runs, Hugging Face folders, hf:ID or module:function")
    compared = [dataclasses.replace(load_adapter(run, settings.which), name=run) for run in settings.runs]
    return measured(compared, settings, settings.out, pixels=True)


class Measured(NamedTuple):
    """All that a table says."""

    found: list[Found]  # the first is whose confusion matrix is drawn
    free: dict[str, dict[str, float]]  # encoder → meters that need no label
    about: dict[str, Any]  # what all scores depend on: images, view, precision, seed
    encoders: dict[str, str]  # encoder → fingerprint


def measured(compared: list[EncoderAdapter], settings: Settings, out: Path, pixels: bool) -> list[Score]:
    """Every probe on every candidate, each with the pictures cut as it wants them; printed and written.

    Under torchrun the processes share the embedding; the main one alone goes on to the probes, the others get nothing.
    """
    if not settings.probes:
        raise UserError("no probe was asked for: try --probes logistic knn")
    where = choose_device(settings.device, settings.precision)
    with process_group(where.device):
        if rank_and_size()[1] > 1:
            if not settings.features:
                raise UserError("processes share the features by a folder: give --features FOLDER")
            for each in compared:
                seen_by(each, settings, where)
        if not is_main():
            return []
    found: list[Found] = []
    free: dict[str, dict[str, float]] = {}
    for each in compared:
        data, parts = seen_by(each, settings, where)
        found += scores_of(Subject(each.name, parts, len(data.train.classes), settings))
        free[each.name] = meters(Viewer(each, data.train, where), parts.test["last"], settings.seed)
    data = split(compared[0].data, settings.data, settings.seed)
    if pixels:
        parts = Parts(raw(data.train), raw(data.test))
        found += scores_of(Subject("raw pixels", parts, len(data.train.classes), settings))
    about = {
        "images": [part.fingerprint for part in data[:2]],
        "labels": settings.data.labels,
        "fit": settings.data.fit,
        "precision": where.precision,
        "seed": settings.seed,
    }
    encoders = {each.name: each.fingerprint for each in compared}
    publish(Measured(found, free, about, encoders), data, settings, out)
    return [each.score for each in found]


def seen_by(each: EncoderAdapter, settings: Settings, where: Device) -> tuple[Split, Parts]:
    """The data as one encoder wants it, and its features."""
    data = dataclasses.replace(each.data, flip=settings.crops or each.data.flip)
    parts = split(data, settings.data, settings.seed)
    return parts, features_of(each, parts, settings, where)


def publish(result: Measured, data: Split, settings: Settings, out: Path) -> None:
    """Prints the tables; writes them as JSON and Markdown, with the first score's confusion matrix, named as the data.

    What an earlier call found by other probes of the same encoders on the same images stays in the files.
    """
    (train, test, how), first = data, result.found[0]
    name, classes = settings.data.name, train.classes
    title = f"{len(classes)} classes, {len(train):,} images to train on, {len(test):,} to test ({how})"
    info(title)
    scores = [each.score for each in result.found]
    show(scores, "top-1 accuracy on test images (95 % interval)")
    show_free(result.free)

    out.mkdir(parents=True, exist_ok=True)
    older, encoders = earlier(out / f"{name}.json", result.about, result.encoders)
    new = {(each.features, each.probe) for each in scores}
    scores = [*(each for each in older if (each.features, each.probe) not in new), *scores]
    text = f"# {name}\n\n{title}\n\n{markdown(scores)}\n\n{markdown_free(result.free)}\n"
    if first.predicted is not None:
        table, of = (
            confusion(first.predicted, first.truth, len(classes)),
            f"{first.score.features}, {first.score.probe}",
        )
        drawn = picture(table, classes, of, out / f"{name}.png")
        text += f"\n## {of}\n\n![confusion]({drawn.name})\n\n{per_class(table, classes)}\n"
    if drawn := curve(scores, out / f"{name}-labels.png"):
        text += f"\n## Accuracy against labels\n\n![accuracy against labels]({drawn.name})\n"
    asked = {"settings": json.loads(json.dumps(dataclasses.asdict(settings), default=str)), "split": title}
    about = {"about": result.about, "encoders": encoders | result.encoders, **asked, "label_free": result.free}
    kept = next((each for each in result.found if each.model and each.score.features == first.score.features), None)
    if kept and kept.model:
        encoder = result.encoders[kept.score.features]
        save(head_of(kept.model, classes, encoder), out / f"{name}{SUFFIX}")
    file = write(out, name, about, scores, text)
    info(f"written    {file}")


def features_of(each: EncoderAdapter, parts: Split, settings: Settings, where: Device) -> Parts:
    """Both parts' features, from the folder where they are kept if they are there."""
    kinds: tuple[PooledKind, ...] = (
        POOLED_KINDS if "linear" in settings.probes or settings.kind == "last4" else POOLED_KINDS[:1]
    )

    def made(data: Dataset) -> Features:
        own = f"{data.fingerprint}-{each.fingerprint}-{'-'.join(kinds)}-{settings.data.fit}"
        return embed(each, data, where, kinds, settings.features / own if settings.features else None)

    views = Viewers(Viewer(each, parts.train, where), Viewer(each, parts.test, where))
    return Parts(made(parts.train), made(parts.test), views)
