"""docs/modalities/audio.md: every block runs, in order, on a few short recordings, and gives the shapes it states."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from openjepa.cli.main import main
from openjepa.data.wav_files import wav_content

PAGE = (Path(__file__).parents[1] / "docs" / "modalities" / "audio.md").read_text(encoding="utf-8")

SHORTER = {
    "pretrain": ["--steps", "2", "--batch-size", "8", "--workers", "0", "--no-report"],
    "probe": ["--probes", "knn", "--device", "cpu"],
}

SKIPPED = {"sounds-rising", "jep-kd", "future-with-sound", "runs/lips/stage-3"}


@pytest.fixture
def recordings(tmp_path, monkeypatch):
    """Write 24 short recordings of three speakers into recordings/, with their labels."""
    monkeypatch.chdir(tmp_path)
    Path("recordings").mkdir()
    Path("pictures").mkdir()
    Path("new").mkdir()
    lines, rng = ["file,digit,speaker"], np.random.default_rng(0)
    for number in range(24):
        digit, speaker = number % 2, ("anna", "ben", "cleo")[number % 3]
        name = f"{digit}_{speaker}_{number // 6}.wav"
        tone = np.sin(2 * np.pi * (200 + 300 * digit) * np.arange(6000) / 8000) + 0.1 * rng.normal(size=6000)
        Pillow.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).save(Path("pictures", name).with_suffix(".png"))
        Path("recordings", name).write_bytes(wav_content(0.4 * tone, 8000))
        lines.append(f"{name},{digit},{speaker}")
        if number < 3:
            Path("new", name).write_bytes(wav_content(0.4 * tone[::-1], 8000))
    Path("recordings/labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def blocks() -> list[tuple[str, str]]:
    return re.findall(r"```(bash|python)\n(.*?)```", PAGE, re.DOTALL)


def test_the_blocks_run(recordings, capsys):
    for kind, text in blocks():
        if kind == "python":
            exec(compile(text, "audio.md", "exec"), {})
            stated = re.search(r"# (torch\.Size\(.*?\))", text)
            assert stated and stated[1] in capsys.readouterr().out
        for line in text.splitlines() if kind == "bash" else ():
            words = shlex.split(line, comments=True)
            if words[1] == "demo" or SKIPPED & set(words):
                continue  # tests/test_audio.py runs the demo, tests/test_conditioned.py the recipes of clips
            if "--budget" in words:
                position = words.index("--budget")
                words = words[:position] + words[position + 2 :]
            assert main([*words[1:], *SHORTER.get(words[1], [])]) == 0, (line, capsys.readouterr().err[-800:])
