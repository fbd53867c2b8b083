"""Find a recording again in another codec, and a second of it in ten minutes.

    python -m studies.audio.search --run runs/teacher --sounds audio/wav --out runs/search

Copies of every fifth recording, as MP3 and as Ogg Vorbis and 12 dB quieter, search the index of all recordings: how
often is the original first? Then copies and recordings are searched for duplicates. Last, recordings are joined with
pauses and faint noise to ten minutes, of which the index has a row for every tenth of a second, and 100 stretches from
anywhere in it are searched, also 6 dB quieter and in noise: is the first hit within a second?
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import tyro

from openjepa.cli.embed import embed
from openjepa.cli.settings import Embed
from openjepa.data.clips import parse_clip_name
from openjepa.evaluation.duplicates import group_pairs, nearest_pairs
from openjepa.evaluation.index import open_index
from openjepa.evaluation.search import PooledSearch
from openjepa.evaluation.settings import Search
from openjepa.interop.pretrained import load_run

CODECS = {"mp3": ("MP3", "MPEG_LAYER_III"), "ogg": ("OGG", "VORBIS")}

MINUTES, QUERIES, STEP = 10, 100, 0.1


@dataclass(frozen=True)
class Study:
    """Measure a run; everything is written into `out` again."""

    run: Path
    sounds: Path
    out: Path = Path("runs/search")


def write_copy(samples: np.ndarray, rate: int, file: Path, decibels: float) -> None:
    """Write sound in the codec of the file's ending, quieter."""
    kind, subtype = CODECS[file.suffix[1:]]
    file.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(file, samples * 10 ** (-decibels / 20), rate, format=kind, subtype=subtype)


def index_of(run: Path, folder: Path, out: Path, every: float = 0.0):
    """Write the index of a folder and open it."""
    embed(Embed(run=str(run), data=str(folder), out=out, every=every, device="cpu"))
    return open_index(out)


def measure_copies(study: Study) -> None:
    """Print how often the original of a copy is found first, and how many copies are grouped with their original."""
    files = sorted(study.sounds.glob("*.wav"))
    index, encoder = index_of(study.run, study.sounds, study.out / "rows.safetensors"), load_run(study.run)
    finder = PooledSearch.of(Search(index=index.file, query=""), index)
    rows = [Path(file).stem for file in index.files]
    for codec in CODECS:
        copies = [study.out / "copies" / codec / f"{file.stem}.{codec}" for file in files[::5]]
        for source, copy in zip(files[::5], copies, strict=True):
            write_copy(*soundfile.read(source), copy, 12)
        near = finder.find(encoder.features(list(map(str, copies))).numpy(), 1).rows[:, 0]
        hits = np.mean([rows[row] == copy.stem for row, copy in zip(near.tolist(), copies, strict=True)])
        print(f"{codec}, 12 dB quieter: the original is first for {100 * hits:.1f} % of {len(copies)}")

        measure_duplicates(study, codec, len(copies))


def measure_duplicates(study: Study, codec: str, copies: int) -> None:
    """Print how many copies are grouped with their original."""
    folder = study.out / f"all-{codec}"
    shutil.copytree(study.sounds, folder)
    shutil.copytree(study.out / "copies" / codec, folder / "copies")
    index = index_of(study.run, folder, study.out / f"all-{codec}.safetensors")
    name = [Path(file).stem for file in index.files]
    groups = [[name[row] for row in group] for group in group_pairs(nearest_pairs(index), 0.85)]
    together = sum(len(group) - len(set(group)) for group in groups)
    others = sum(len(set(group)) > 1 for group in groups)
    print(
        f"{codec}, duplicates: {together} of {copies} copies are grouped with their original; {others} of "
        f"{len(groups)} groups also have another recording"
    )


def measure_stretches(study: Study) -> None:
    """Print how often the first hit of a stretch of a long recording is within a second of where it is from."""
    rng, rate = np.random.default_rng(0), 8000
    long = 0.002 * rng.normal(size=MINUTES * 60 * rate)
    files, start = sorted(study.sounds.glob("*.wav")), 0
    while True:
        samples = soundfile.read(files[rng.integers(len(files))])[0]
        start += int(rng.uniform(0, 0.4) * rate)
        if start + len(samples) > len(long):
            break
        long[start : start + len(samples)] += samples
        start += len(samples)
    (study.out / "long").mkdir(parents=True)
    soundfile.write(study.out / "long" / "long.wav", long, rate)
    index, encoder = index_of(study.run, study.out / "long", study.out / "long.safetensors", STEP), load_run(study.run)
    finder, length = PooledSearch.of(Search(index=index.file, query=""), index), encoder.data.samples
    starts = rng.uniform(0, MINUTES * 60 - length / rate, QUERIES)
    stretches = np.stack([long[int(time * rate) :][:length] for time in starts])[:, None].astype(np.float32)
    noisy = 0.5 * stretches + 0.001 * rng.normal(size=stretches.shape).astype(np.float32)
    print(f"{MINUTES} minutes, {len(index.files)} rows")
    for what, sound in {"as it is": stretches, "6 dB quieter, in noise": noisy}.items():
        near = finder.find(encoder.features(sound).numpy(), 1).rows[:, 0]
        times = np.array([parse_clip_name(index.files[row])[1] for row in near.tolist()], float)
        distance = np.abs(times + STEP / 2 - starts - length / rate / 2)  # of the middles
        print(f"a stretch, {what}: {(distance <= 1).sum()} of {QUERIES} first hits are within a second")


if __name__ == "__main__":
    options = tyro.cli(Study)
    shutil.rmtree(options.out, ignore_errors=True)
    measure_copies(options)
    measure_stretches(options)
