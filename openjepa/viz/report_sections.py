"""Build the sections of a report."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from openjepa.core.capabilities import Describes, plural_of
from openjepa.core.config import flatten
from openjepa.core.fileio import read_json
from openjepa.evaluation.scores import describe_scores, read_scores, table_rows
from openjepa.training.collapse import CollapseAlarm
from openjepa.training.config import RUN_SETTINGS, Pretrain, load_config, to_json
from openjepa.training.locations import data_roots
from openjepa.viz.curves import load_logs
from openjepa.viz.html import escape

LogRows = list[dict[str, Any]]

FACTS = (  # metric, label, format
    ("step", "steps", "{:,}"),
    ("loss", "loss", "{:.3g}"),
    ("relative_loss", "loss / loss of the mean target", "{:.2f}"),
    ("rankme", "RankMe (effective rank)", "{:.0f}"),
    ("samples_per_second", "samples per second", "{:.0f}"),
    ("share_of_ceiling", "of the matmul ceiling", "{:.0%}"),
    ("online_knn", "online kNN accuracy", "{:.1%}"),
)

SPEED = {"samples_per_second": "{:.1f}", "data_wait": "{:.1%}", "share_of_ceiling": "{:.1%}"}  # metric -> format

SPEED_COLUMNS = ("run", "samples / s", "time waiting for data", "of the matmul ceiling")

COMPARED = ("step", "loss", "relative_loss", "target_std", "feature_spread", "rankme", "samples_per_second")


class RunRecord(NamedTuple):
    """The settings, log and metadata of a run."""

    folder: Path
    name: str  # unique on the page
    settings: Pretrain
    log: LogRows
    data: dict[str, Any]  # data.json
    environment: dict[str, Any]  # environment.json

    @property
    def last(self) -> dict[str, Any]:
        """Return the newest value of every metric."""
        return {name: value for row in self.log for name, value in row.items()}


def read_run_records(folders: Sequence[Path]) -> list[RunRecord]:
    """Read run folders. Raises UserError if one is not a run, has an empty log, or is given twice."""
    settings = [load_config(folder) for folder in folders]
    return [
        RunRecord(folder, name, each, log, *read_descriptions(folder))
        for folder, each, (name, log) in zip(folders, settings, load_logs(folders), strict=True)
    ]


def read_descriptions(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read data.json and environment.json of a run; {} for one that is missing."""
    files = (folder / "data.json", folder / "environment.json")
    data, environment = (read_json(file) if file.is_file() else {} for file in files)
    return data, environment


def format_table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a table as HTML, in a box that scrolls sideways."""
    cells = "".join(f"<th>{escape(each)}</th>" for each in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(each)}</td>" for each in line) + "</tr>" for line in lines)
    return f'<div class="wide"><table><tr>{cells}</tr>{body}</table></div>'


def summarize_run(run: RunRecord) -> str:
    """Summarize method, encoder, data and progress of a run."""
    data, method, done = run.settings.data, run.settings.method, run.log[-1]["step"]
    samples = f"{run.data['count']:,} samples" if run.data.get("count") else "samples"
    shape = f" ({data.describe()})" if isinstance(data, Describes) else ""
    return (
        f"{run.name}: {type(method).__name__} ({method.describe()}), "
        f"trained on {samples}{shape}. {done:,} of {run.settings.steps:,} steps at batch size "
        f"{run.settings.batch_size} are done ({run.settings.epochs:.3g} epochs in total)."
    )


def format_facts(run: RunRecord) -> str:
    """Return the most important metrics as HTML; throughput is the median over the log."""
    medians = {name: median(run, name) for name in ("samples_per_second", "share_of_ceiling") if name in run.last}
    values = run.last | medians
    items = [
        f"<li><b>{form.format(values[name])}</b><span>{label}</span></li>"
        for name, label, form in FACTS
        if name in values
    ]
    return f'<ul class="facts">{"".join(items)}</ul>'


def format_data(run: RunRecord, named: bool) -> str:
    """Return how many samples a run was trained on and where they are, as HTML."""
    count = f"{run.data['count']:,} {plural_of(run.settings.data)}" if run.data.get("count") else "samples"
    name = f"{escape(run.name)}: " if named else ""
    return f"<p>{name}{count} in {escape(', '.join(data_roots(run.settings.data))) or 'memory'}</p>"


def list_warnings(run: RunRecord) -> Iterator[str]:
    """Yield warnings: collapse alarms, files that could not be decoded, an unfinished run."""
    alarm = CollapseAlarm(run.settings.method)
    for row in run.log:
        if message := alarm.check({name: float(value) for name, value in row.items()}):
            yield f"{run.name}, step {row['step']:,}: {message}"
    skipped = run.folder / "skipped.jsonl"
    if skipped.is_file() and (lines := skipped.read_text(encoding="utf-8", errors="replace").splitlines()):
        first = json.loads(lines[0])
        yield (
            f"{run.name}: {len(lines):,} files could not be decoded and were replaced by others, "
            f"e.g. {first['path']} ({first['reason']})."
        )
    if run.log[-1]["step"] < run.settings.steps:
        yield f"{run.name} is not finished: resume it with jepa pretrain --out {run.folder} --resume."


def format_comparison(runs: Sequence[RunRecord]) -> str:
    """Return the newest metrics of several runs and the settings that differ, as HTML."""
    metrics = [
        (name.replace("_", " "), *(f"{run.last[name]:.4g}" if name in run.last else "" for run in runs))
        for name in COMPARED
    ]
    flat = [flatten(to_json(run.settings)) for run in runs]
    rows = [(name, *(str(each.get(name, "")) for each in flat)) for name in dict.fromkeys(chain(*flat))]
    differing = [row for row in rows if len(set(row[1:])) > 1 and row[0] not in RUN_SETTINGS]
    head = ("", *(run.name for run in runs))
    return format_table(head, metrics) + "<h3>Settings that differ</h3>" + format_table(head, differing)


def format_probes(run: RunRecord, named: bool) -> str:
    """Return the tables of all probes with their baselines, or the command that measures them, as HTML."""
    head, parts = f"<h3>{escape(run.name)}</h3>" if named else "", []
    for file in sorted((run.folder / "probes").glob("*.json")):
        content = read_scores(file)
        if scores := content["scores"]:
            head_row, *rows = table_rows(scores)
            parts.append(format_table(tuple(head_row), [tuple(row) for row in rows]))
            split = escape(str(content.get("split", "")))
            what = f"{escape(file.stem)}, {describe_scores(scores)}"
            parts.append(f"<p>{what}: {split}; 95 % confidence intervals.</p>")
            if content.get("command"):
                parts.append(f"<p>Command: <code>{escape(content['command'])}</code></p>")
    command, _ = run.settings.method.next_commands(shlex.quote(str(run.folder)), run.settings.data)[0]
    return head + ("".join(parts) or f"<p>Not measured yet. Next: <code>{escape(command)}</code></p>")


def format_speed(run: RunRecord) -> tuple[str, ...]:
    """Return the row of SPEED_COLUMNS for a run: medians over the log."""
    return run.name, *(form.format(median(run, name)) if name in run.last else "" for name, form in SPEED.items())


def median(run: RunRecord, name: str) -> float:
    """Return the median of a metric over the log."""
    values = sorted(row[name] for row in run.log if name in row)
    return values[len(values) // 2]


def list_commands(run: RunRecord) -> str:
    """List the commands to run next, one per line."""
    folder = shlex.quote(str(run.folder))
    commands = run.settings.method.next_commands(folder, run.settings.data)
    resume = (f"jepa pretrain --out {folder} --resume", "resume an unfinished run")
    width = max(len(command) for command, _ in (*commands, resume))
    return "\n".join(f"{command.ljust(width)}  # {comment}" for command, comment in (*commands, resume))


def format_settings(run: RunRecord) -> str:
    """Return all settings and the environment as a folded table in HTML."""
    flat = flatten(to_json(run.settings))
    lines = [(name, json.dumps(value, ensure_ascii=False)) for name, value in flat.items()]
    lines += [(f"environment.{name}", str(value)) for name, value in run.environment.items()]
    table = format_table(("setting", "value"), lines)
    return f"<details><summary>{escape(run.name)}: {len(lines)} settings</summary>{table}</details>"
