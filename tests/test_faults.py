"""A log that cannot be written, a terminal that has gone: training goes on, and nothing is lost."""

import errno
import json
import subprocess
import sys

from openjepa.cli.pretrain import pretrain
from openjepa.training.config import to_json
from openjepa.training.log import MetricsFile, read_metrics
from tests.conftest import replace
from tests.faults import outcome, same


def test_rows_that_cannot_be_written_wait_and_are_written_later(tmp_path, monkeypatch, capsys):
    """Half a row that a full disk let through is taken back."""
    rows, write = MetricsFile(tmp_path / "metrics.jsonl"), type(tmp_path).open
    rows.append({"step": 1})

    def full(path, *arguments):
        with write(path, "a") as stream:
            stream.write('{"step": 2, "lo')
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(type(tmp_path), "open", full)
    rows.append({"step": 2})
    rows.append({"step": 3})
    monkeypatch.undo()
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1]
    rows.append({"step": 4})
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4]
    rows.kept = '{"step": 5}\n'
    rows.flush()
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")][-1] == 5 and not rows.kept
    said = capsys.readouterr().err
    assert said.count("No space left on device") == 1 and "training goes on" in said


def test_a_run_whose_log_cannot_be_written_trains_to_its_end(tiny, monkeypatch):
    """And ends as one whose log could."""
    pretrain(replace(tiny, out=tiny.out.with_name("whole")))
    write = MetricsFile.write

    def sometimes(self):
        if '"step": 8' not in self.kept and not self.file.exists():
            return self.failed(OSError(errno.EIO, "Input/output error"), 0)
        return write(self)

    monkeypatch.setattr(MetricsFile, "write", sometimes)
    pretrain(tiny)
    assert same(outcome(tiny.out), outcome(tiny.out.with_name("whole")))


def test_lines_that_a_crash_tore_are_left_out(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(
        b'{"step": 1}\n\0\0\0{"step": 2}\n{"step": 3}\n[4]\n5\n{"ste": 6}\n{"step": "7"}\n{"st\xff'
    )
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1, 3]


RUN = """
import json, sys
from openjepa.cli.main import run_guarded
from openjepa.cli.pretrain import pretrain
from openjepa.training.config import from_json
from tests.small import small
small()
raise SystemExit(run_guarded(lambda _: pretrain(from_json(json.loads(sys.argv[1]))), []))
"""


def test_training_goes_on_when_who_read_its_output_has_gone(tiny):
    """As `jepa pretrain … | head -3` and a terminal that was closed."""
    command = [sys.executable, "-c", RUN, json.dumps(to_json(replace(tiny, log_every=1)))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while b"step 2/" not in process.stdout.readline():
        assert process.poll() is None
    process.stdout.close()
    process.stderr.close()
    assert process.wait(90) == 0
    assert [row["step"] for row in read_metrics(tiny.out / "metrics.jsonl")] == list(range(1, 13))
    assert (tiny.out / "export" / "config.json").exists()
