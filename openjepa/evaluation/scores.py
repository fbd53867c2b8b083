"""Scores with confidence intervals, as tables, Markdown and JSON.   R test samples  K classes"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.core.fileio import write_text
from openjepa.core.markdown import markdown_table
from openjepa.core.tables import print_table
from openjepa.core.types import Score

EARLIER_FIELDS = frozenset({"probe", "accuracy"})  # of scores in files that earlier versions wrote


def confusion_matrix(predicted: Int[Tensor, "R"], truth: Int[Tensor, "R"], classes: int) -> Int[Tensor, "K K"]:
    """Count predictions: row = true class, column = predicted class."""
    return torch.bincount(truth * classes + predicted, minlength=classes * classes).view(classes, classes)


def print_scores(scores: list[Score], title: str) -> None:
    """Print a table with a row per encoder and a column per metric."""
    head, *rows = table_rows(scores)
    print_table(head, rows, title)


def format_scores(scores: list[Score]) -> str:
    """Format the table of `print_scores` as Markdown."""
    head, *rows = table_rows(scores)
    return markdown_table(head, rows)


def table_rows(scores: list[Score]) -> list[list[str]]:
    """Return the cells of the table of scores, the heading first: a row per encoder, a column per task and metric."""
    columns = {(each.task, each.metric): each for each in scores}
    cells = {(each.features, each.task, each.metric): format_value(each) for each in scores}
    head = ["features", *(column_heading(scores, each) for each in columns.values())]
    names = dict.fromkeys(each.features for each in scores)
    return [head, *([name, *(cells.get((name, *each), "") for each in columns)] for name in names)]


def describe_scores(scores: list[Score]) -> str:
    """Return the title of a table: accuracies if all are percentages, else scores."""
    return f"{'accuracy' if all(each.unit == '%' for each in scores) else 'scores'} on test data"


def print_label_free(free: dict[str, dict[str, float]], title: str = "without labels") -> None:
    """Print a table of metrics that need no labels, with a row per encoder."""
    names = list(next(iter(free.values())))
    rows = [[name, *(f"{values[each]:.3g}" for each in names)] for name, values in free.items()]
    print_table(["features", *(name.replace("_", " ") for name in names)], rows, title)


def format_label_free(free: dict[str, dict[str, float]]) -> str:
    """Format the table of `print_label_free` as Markdown."""
    names = list(next(iter(free.values())))
    rows = [[name, *(f"{values[each]:.3g}" for each in names)] for name, values in free.items()]
    return markdown_table(["features", *names], rows)


def column_heading(scores: list[Score], score: Score) -> str:
    """Return the heading of a score's column: what differs between columns, the unit, an arrow if lower is better."""
    tasks, metrics = {each.task for each in scores}, {each.metric for each in scores}
    task = [score.task] if len(tasks) > 1 else []
    metric = [score.metric] if len(metrics) > 1 or not task else []
    return " ".join([*task, *metric, *([score.unit] if score.unit else []), *([] if score.higher_is_better else ["↓"])])


def format_value(score: Score) -> str:
    """Format a value with its interval, if it has one."""
    digits = ".1f" if score.unit == "%" else ".3g"
    interval = "" if score.low is None or score.high is None else f" ({score.low:{digits}}–{score.high:{digits}})"
    return f"{score.value:{digits}}{interval}"


def format_class_table(table: Int[Tensor, "K K"], classes: tuple[str, ...]) -> str:
    """Format each class's accuracy and its most frequent confusion as Markdown."""
    rows, wrong = [], table.clone().fill_diagonal_(0)
    for number, name in enumerate(classes):
        count, worst = int(table[number].sum()), int(wrong[number].argmax())
        correct = f"{100 * int(table[number, number]) / count:.1f}" if count else "–"
        rows.append([name, count, correct, classes[worst] if wrong[number, worst] else "–"])
    return markdown_table(["class", "test images", "correct %", "most confused with"], rows)


def write_scores(file: Path, scores: list[Score], about: dict[str, Any]) -> Path:
    """Write scores as JSON, atomically: {"scores": [...]} and what they depend on; every command writes this layout."""
    content = {**about, "scores": [each._asdict() for each in scores]}
    return write_text(file, json.dumps(content, indent=1, ensure_ascii=False))


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
        content = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        return {**content, "scores": [read_score(each, file.stem) for each in content.get("scores", [])]}
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{file} is damaged ({error}): remove it, and the next call writes a new one") from error


def read_score(plain: dict[str, Any], task: str) -> Score:
    """Convert one score from JSON; one of the earlier layout held a fraction and no task, which named the file."""
    if plain.keys() & EARLIER_FIELDS:
        unknown = sorted(plain.keys() - {"features", "probe", "accuracy", "low", "high", "chosen"})
        missing = sorted({"features", "probe", "accuracy", "low", "high"} - plain.keys())
        if unknown or missing:
            raise ValueError(f"a score has the fields {', '.join(plain)}")
        value, low, high = (100 * plain[name] for name in ("accuracy", "low", "high"))
        return Score(task, plain["features"], plain["probe"], value, low, high, chosen=plain.get("chosen", {}))
    return Score(**plain)
