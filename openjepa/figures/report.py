"""`jepa report`: a run, or several side by side, in one page that holds everything it shows."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from openjepa.core.arguments import Runs
from openjepa.core.config import flatten
from openjepa.core.console import info, warn
from openjepa.core.errors import UserError
from openjepa.core.fileio import read_json
from openjepa.evaluation.scores import distinct_probes, read_scores, score_cell
from openjepa.figures import curves, masks, neighbours, spectrum
from openjepa.figures.canvas import Plate, body, section, written
from openjepa.figures.curves import logs_of
from openjepa.figures.features import FeaturesOf, of
from openjepa.figures.neighbours import FOUND
from openjepa.figures.prediction import predicts
from openjepa.figures.shown import encoder, evenly, some
from openjepa.figures.spectrum import pooled, stages_of
from openjepa.methods.decoder import Decoder
from openjepa.modalities.image import Image
from openjepa.training.collapse import CollapseAlarm
from openjepa.training.config import RUN_SETTINGS, Pretrain, load_config, to_json
from openjepa.training.log import read_metrics

EFFORT = 1e12  # operations of one pass of an encoder over all pictures that are looked at, about

LEAST, MOST = 24, 2048  # pictures among which neighbours are found

SAMPLES = 128  # of these, at most, every patch is looked at

SHOWN = 6

Logs = list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Report:
    """Writes one page on a run: what was learnt from what, curves, probes, pictures, speed, warnings, settings. No network."""

    runs: Runs
    out: Path | None = None  # a .html; by default RUN/report.html, of several runs report.html here
    pictures: bool = True  # draw masks, features, predictions, neighbours and the spectrum, from the run's own data


class Told(NamedTuple):
    """What is known of a run."""

    folder: Path
    settings: Pretrain
    log: Logs
    data: dict[str, Any]
    environment: dict[str, Any]

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def last(self) -> dict[str, Any]:
        """The newest value of every signal."""
        return {name: value for row in self.log for name, value in row.items()}


def report(settings: Report) -> Path:
    """The page's path. Mistake if a folder is no run, or has taken no step."""
    if not settings.runs:
        raise UserError("a report is of a run: give its folder, or several")
    runs = [told_of(Path(each)) for each in settings.runs]
    out = settings.out or (runs[0].folder / "report.html" if len(runs) == 1 else Path("report.html"))
    if out.suffix != ".html":
        raise UserError(f"{out} is no .html: try --out {out.with_suffix('.html')}")
    title = runs[0].name if len(runs) == 1 else " · ".join(run.name for run in runs)
    page = written(f"Report: {title}", "\n".join(sections(runs, settings.pictures)), out)
    info(f"report     {page}")
    return page


def told_of(folder: Path) -> Told:
    settings = load_config(folder)
    notes = (read_json(file) if (file := folder / f"{name}.json").is_file() else {} for name in ("data", "environment"))
    (_, log), *_ = logs_of([folder])
    return Told(folder, settings, log, *notes)


def sections(runs: Sequence[Told], pictures: bool) -> Iterator[str]:
    """The page from top to bottom."""
    yield "".join(f"<p>{html.escape(sentence(run))}</p>" for run in runs)
    yield from (facts(run) for run in runs if len(runs) == 1)
    if found := [warning for run in runs for warning in warnings(run)]:
        yield section(
            "warnings",
            "Warnings",
            f'<div class="warning">{"".join(f"<p>{html.escape(each)}</p>" for each in found)}</div>',
        )
    if len(runs) > 1:
        yield section("side", "Side by side", side_by_side(runs))
    caption = "Shaded: where a healthy run lies; below the dashed line the alarm speaks."
    charts = curves.charts([(run.name, run.log) for run in runs])
    yield section("curves", "Curves", f"{charts}<p>{caption}</p>")
    yield section("probes", "What it is good for", "".join(probes(run, len(runs) > 1) for run in runs))
    for run in runs if pictures else ():
        yield from drawn(run, len(runs) > 1)
    yield section(
        "speed",
        "Speed",
        table(("run", "images / s", "of it waiting for data", "of the matrix rate"), (speed(run) for run in runs)),
    )
    yield section("next", "How to go on", "".join(f"<pre>{html.escape(commands(run))}</pre>" for run in runs))
    yield section("settings", "Settings", "".join(everything(run) for run in runs))


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Rows of text as HTML, in a box that can be moved sideways."""
    cells = "".join(f"<th>{html.escape(each)}</th>" for each in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(each)}</td>" for each in line) + "</tr>" for line in lines)
    return f'<div class="wide"><table><tr>{cells}</tr>{body}</table></div>'


def sentence(run: Told) -> str:
    """What was trained on what."""
    data, method, done = run.settings.data, run.settings.method, run.log[-1]["step"]
    samples = f"{run.data.get('count', 0):,} samples" if run.data.get("count") else "samples"
    shape = f", {data.size[0]}×{data.size[1]} px in patches of {data.patch}" if isinstance(data, Image) else ""
    state = "has taken all its" if done >= run.settings.steps else f"has taken {done:,} of its"
    return (
        f"{run.name}: {type(method).__name__}, an encoder of width {method.dim} and depth {method.depth}, learns from {samples}"
        f"{shape}. It {state} {run.settings.steps:,} steps of {run.settings.batch_size} ({run.settings.epochs:.3g} epochs)."
    )


def facts(run: Told) -> str:
    """The figures that are looked for first."""
    last = run.last | {
        name: middle(run, name) for name in ("images_per_second", "share_of_ceiling") if name in run.last
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


def warnings(run: Told) -> Iterator[str]:
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


def side_by_side(runs: Sequence[Told]) -> str:
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
    return table(head, lines) + "<h3>Settings that differ</h3>" + table(head, differing)


def probes(run: Told, named: bool) -> str:
    """Every probe's table, with its baselines."""
    head, parts = f"<h3>{html.escape(run.name)}</h3>" if named else "", []
    for file in sorted((run.folder / "probes").glob("*.json")):
        content = read_scores(file)
        if found := content["scores"]:
            names, kinds = distinct_probes(found)
            lines = [(name, *(score_cell(found, name, kind) for kind in kinds)) for name in names]
            parts.append(
                table(("features", *(f"{kind} %" for kind in kinds)), lines)
                + f"<p>{html.escape(file.stem)}: {html.escape(str(content.get('split', '')))}, intervals of 95 %.</p>"
            )
    command = f"<p>Nothing was measured yet. With a folder of labelled pictures: <code>jepa probe {html.escape(str(run.folder))} --data.root LABELLED</code></p>"
    return head + ("".join(parts) or command)


def drawn(run: Told, named: bool) -> Iterator[str]:
    """Masks, features, predictions, neighbours and the spectrum, of the run's own pictures; or why there are none."""
    suffix = f", {run.name}" if named else ""
    try:
        for plate in plates(run):
            yield section(f"{plate.name}{f'-{run.name}' if named else ''}", plate.title + suffix, body(plate))
    except (UserError, OSError) as error:
        yield section(
            f"pictures-{run.name}", f"Pictures{suffix}", f"<p>None could be drawn: {html.escape(str(error))}</p>"
        )


def plates(run: Told) -> Iterator[Plate]:
    """The pictures that can be drawn of this run."""
    if not isinstance(run.settings.data, Image):
        raise UserError(f"{run.name} learns from signals")
    folder, root = str(run.folder), run.settings.data.root
    this = encoder(FeaturesOf(run=folder))
    cost = encoder(run.settings.method, this.data, this.data.grid[0] * this.data.grid[1])
    affordable = max(LEAST, min(MOST, int(EFFORT / cost)))
    many = some(root, this.data, affordable)
    found = many.few(evenly(len(many.names), min(SAMPLES, affordable)))
    if predicts(run.settings):
        yield masks.drawn(run.settings, found.few(evenly(len(found.names), 3)))
    yield of(this, found.leading(SHOWN))
    if predicts(run.settings) and any((run.folder / "checkpoints").glob("step-*")):
        yield of(run.folder, found.leading(SHOWN - 2))
    if len(found.names) > FOUND:
        yield neighbours.drawn(many, pooled(this, many.view).numpy())
        stages = stages_of(run.folder, run.settings, "target")
        yield spectrum.drawn([(name, pooled(each, found.view)) for name, each in stages], len(found.names))


def speed(run: Told) -> tuple[str, ...]:
    """Medians over the log."""
    wanted = {"images_per_second": "{:.1f}", "data_wait": "{:.1%}", "share_of_ceiling": "{:.1%}"}
    return run.name, *(form.format(middle(run, name)) if name in run.last else "" for name, form in wanted.items())


def middle(run: Told, name: str) -> float:
    """The median of a signal over the log."""
    values = sorted(row[name] for row in run.log if name in row)
    return values[len(values) // 2]


def commands(run: Told) -> str:
    folder = run.folder
    if isinstance(run.settings.method, Decoder):
        return (
            f"jepa decode sample {folder} PICTURES          # each drawn several times\n"
            f"jepa decode measure {folder} OTHER_PICTURES   # whether that agrees, beside a control"
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


def everything(run: Told) -> str:
    """All settings and the environment, folded up."""
    flat = flatten(to_json(run.settings))
    lines = [(name, json.dumps(value, ensure_ascii=False)) for name, value in flat.items()]
    lines += [(f"environment.{name}", str(value)) for name, value in run.environment.items()]
    return f"<details><summary>{html.escape(run.name)}: {len(lines)} settings</summary>{table(('setting', 'value'), lines)}</details>"


def at_end(folder: Path) -> Path | None:
    """The report of a run that has just ended; the run is done without it, too, and why there is none is said."""
    if not read_metrics(folder / "metrics.jsonl"):
        return None
    try:
        return report(Report(runs=(str(folder),)))
    except (UserError, OSError) as error:
        warn(f"no report was written ({error}); later: jepa report {folder}")
        return None
