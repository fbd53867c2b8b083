"""Command `jepa labels`: describe labeled data."""

from __future__ import annotations

from typing import Any

from openjepa.core import registry
from openjepa.core.console import info, warn
from openjepa.core.tables import print_table
from openjepa.data.labels.describe import LabeledFiles, describe, to_json
from openjepa.data.labels.overlap import find_overlap
from openjepa.data.labels.paths import relative_parts
from openjepa.data.labels.patterns import advise
from openjepa.data.settings import Labels
from openjepa.evaluation.settings import LabeledData
from openjepa.evaluation.tasks.folders import choose_parts, describe_data
from openjepa.recipes.detect import detect_modality


def labels(settings: Labels) -> dict[str, Any]:
    """Print the classes and splits of labeled data, how they were found and what looks wrong; return the description.

    Raises UserError if no data are given, or if the labels are ambiguous.
    """
    roots = settings.folder or settings.train
    modality = registry.find("modality", settings.modality or detect_modality(roots))()
    labeled = LabeledData(
        root=settings.folder,
        labels=settings.labels,
        train=settings.train,
        test=settings.test,
        label=settings.label,
        group=settings.group,
        pattern=settings.pattern,
        class_depth=settings.class_depth,
    )
    files = describe_data(modality, labeled)
    train, test, how = choose_parts(files)
    tested_on = how if test else f"a random fifth, held out{how}"
    overlap = find_overlap(train.paths, test.paths) if test else []
    info("\n".join(describe(files)))
    if files.classes:
        info(f"tested on: {tested_on}")
        print_classes(files, settings.count)
    else:
        info(f"no classes: {advise(relative_parts(files.listing))}")
    if overlap:
        warn(f"{len(overlap):,} test files are also training files, e.g. {overlap[0][1]} is {overlap[0][0]}")
    return {**to_json(files), "tested_on": tested_on, "overlap": [list(pair) for pair in overlap]}


def print_classes(files: LabeledFiles, count: int) -> None:
    """Print how many files each class has in each split."""
    splits = files.split_names()
    counts = {split: files.count(split) for split in splits}
    rows = [(name, *(f"{counts[split][name]:,}" for split in splits)) for name in files.classes[:count]]
    print_table(("class", *(split or "files" for split in splits)), rows)
    if len(files.classes) > count:
        info(f"and {len(files.classes) - count:,} more: --count {len(files.classes)} prints all")
