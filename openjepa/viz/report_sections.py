"""The sections of a run's report."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from openjepa.core.config import flatten
from openjepa.core.fileio import read_json
from openjepa.evaluation.scores import distinct_probes, read_scores, score_cell
from openjepa.methods.decoder import Decoder
from openjepa.modalities.image import Image
from openjepa.training.collapse import CollapseAlarm
from openjepa.training.config import RUN_SETTINGS, Pretrain, load_config, to_json
from openjepa.viz.curves import load_logs

LogRows = list[dict[str, Any]]


class RunRecord(NamedTuple):
    """What is known of a run."""

    folder: Path
    settings: Pretrain
    log: LogRows
    data: dict[str, Any]
    environment: dict[str, Any]

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def last(self) -> dict[str, Any]:
        """The newest value of every signal."""
        return {name: value for row in self.log for name, value in row.items()}


def read_run_record(folder: Path) -> RunRecord:
    settings = load_config(folder)
    notes = (read_json(file) if (file := folder / f"{name}.json").is_file() else {} for name in ("data", "environment"))
    (_, log), *_ = load_logs([folder])
    return RunRecord(folder, settings, log, *notes)


def html_table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Rows of text as HTML, in a box that can be moved sideways."""
    cells = "".join(f"<th>{html.escape(each)}</th>" for each in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(each)}</td>" for each in line) + "</tr>" for line in lines)
    return f'<div class="wide"><table><tr>{cells}</tr>{body}</table></div>'


def summary_sentence(run: RunRecord) -> str:
    """What was trained on what."""
    data, method, done = run.settings.data, run.settings.method, run.log[-1]["step"]
    samples = f"{run.data.get('count', 0):,} samples" if run.data.get("count") else "samples"
    shape = f", {data.size[0]}×{data.size[1]} px in patches of {data.patch}" if isinstance(data, Image) else ""
    state = "has taken all its" if done >= run.settings.steps else f"has taken {done:,} of its"
    return (
        f"{run.name}: {type(method).__name__}, an encoder of width {method.dim} and depth {method.depth}, learns from {samples}"
        f"{shape}. It {state} {run.settings.steps:,} steps of {run.settings.batch_size} ({run.settings.epochs:.3g} epochs)."
    )


def fact_table(run: RunRecord) -> str:
    """The figures that are looked for first."""
    last = run.last | {
        name: median_of(run, name) for name in ("images_per_second", "share_of_ceiling") if name in run.last
    }
    wanted = (
        ("step", "steps taken", "{:,}"), ("loss", "loss", "{:.3g}"), ("relative_loss", "of the mean target's loss", "{:.2f}"),
        ("rankme", "RankMe, directions", "{:.0f}"), ("images_per_second", "images per second", "{:.0f}"),
        ("share_of_ceiling", "of the matrix rate", "{:.0%}"), ("online_knn", "kNN during the run", "{:.1%}"),
    )  # fmt: skip
    items = (
        f"<li><b>{form.format(last[name])}</b><span>{words}</span></li>" for name, words, form in wanted if name in last
    )
    return f'<ul class="facts">{"".join(items)}</ul>'


def warning_list(run: RunRecord) -> Iterator[str]:
    """What a person should know: alarms, files passed over, a run that is not done."""
    alarm = CollapseAlarm(run.settings.method)
    for row in run.log:
        if message := alarm.check({name: float(value) for name, value in row.items()}):
            yield f"{run.name}, step {row['step']:,}: {message}"
    skipped = run.folder / "skipped.jsonl"
    if skipped.is_file() and (lines := skipped.read_text(errors="replace").splitlines()):
        first = json.loads(lines[0])
        yield f"{run.name}: {len(lines):,} files could not be decoded and others took their place, the first {first['path']} ({first['reason']})."
    if run.log[-1]["step"] < run.settings.steps:
        yield f"{run.name} is not done: jepa pretrain --out {run.folder} --resume goes on."


def comparison_table(runs: Sequence[RunRecord]) -> str:
    """Figures of several runs, and the settings in which they differ."""
    names = ("step", "loss", "relative_loss", "target_std", "feature_spread", "rankme", "images_per_second")
    lines = [
        (name.replace("_", " "), *(f"{run.last[name]:.4g}" if name in run.last else "" for run in runs))
        for name in names
    ]
    flat = [flatten(to_json(run.settings)) for run in runs]
    every = dict.fromkeys(name for each in flat for name in each)
    other = [name for name in every if len({str(each.get(name, "")) for each in flat}) > 1 and name not in RUN_SETTINGS]
    differing = [(name, *(str(each.get(name, "")) for each in flat)) for name in other]
    head = ("", *(run.name for run in runs))
    return html_table(head, lines) + "<h3>Settings that differ</h3>" + html_table(head, differing)


def probe_tables(run: RunRecord, named: bool) -> str:
    """Every probe's table, with its baselines."""
    head, parts = f"<h3>{html.escape(run.name)}</h3>" if named else "", []
    for file in sorted((run.folder / "probes").glob("*.json")):
        content = read_scores(file)
        if found := content["scores"]:
            names, kinds = distinct_probes(found)
            lines = [(name, *(score_cell(found, name, kind) for kind in kinds)) for name in names]
            parts.append(
                html_table(("features", *(f"{kind} %" for kind in kinds)), lines)
                + f"<p>{html.escape(file.stem)}: {html.escape(str(content.get('split', '')))}, intervals of 95 %.</p>"
            )
    command = f"<p>Nothing was measured yet. With a folder of labelled pictures: <code>jepa probe {html.escape(str(run.folder))} --data.root LABELLED</code></p>"
    return head + ("".join(parts) or command)


def speed_table(run: RunRecord) -> tuple[str, ...]:
    """Medians over the log."""
    wanted = {"images_per_second": "{:.1f}", "data_wait": "{:.1%}", "share_of_ceiling": "{:.1%}"}
    return run.name, *(form.format(median_of(run, name)) if name in run.last else "" for name, form in wanted.items())


def median_of(run: RunRecord, name: str) -> float:
    """The median of a signal over the log."""
    values = sorted(row[name] for row in run.log if name in row)
    return values[len(values) // 2]


def command_list(run: RunRecord) -> str:
    folder = run.folder
    if isinstance(run.settings.method, Decoder):
        return (
            f"jepa decoder sample {folder} PICTURES          # each drawn several times\n"
            f"jepa decoder measure {folder} OTHER_PICTURES   # whether that agrees, beside a control"
        )
    return "\n".join(
        (
            f"jepa probe {folder} --data.root LABELLED      # accuracy beside the untrained encoder and raw pixels",
            f"jepa show {folder} PICTURES                   # what it sees in other pictures",
            f"jepa embed {folder} PICTURES --out photos.safetensors && jepa search photos.safetensors PICTURE",
            f"jepa export {folder} --format hf              # for other tools",
            f"jepa pretrain --out {folder} --resume         # goes on, where it is not done",
        )
    )


def settings_table(run: RunRecord) -> str:
    """All settings and the environment, folded up."""
    flat = flatten(to_json(run.settings))
    lines = [(name, json.dumps(value, ensure_ascii=False)) for name, value in flat.items()]
    lines += [(f"environment.{name}", str(value)) for name, value in run.environment.items()]
    return f"<details><summary>{html.escape(run.name)}: {len(lines)} settings</summary>{html_table(('setting', 'value'), lines)}</details>"
