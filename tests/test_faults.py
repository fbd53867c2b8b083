"""Training continues, and loses nothing, when the log cannot be written or the terminal is closed."""

import errno
import json
import subprocess
import sys

from openjepa.cli.pretrain import pretrain
from openjepa.training.config import to_json
from openjepa.training.log import MetricsFile, read_metrics
from tests.conftest import replace
from tests.faults import load_outcome, same_outcome


def test_log_rows_that_cannot_be_written_are_written_later(tmp_path, monkeypatch, capsys):
    """Half a row, written before the disk was full, is removed."""
    rows, write = MetricsFile(tmp_path / "metrics.jsonl"), type(tmp_path).open
    rows.append({"step": 1})

    def full(path, mode, encoding):
        with write(path, mode, encoding=encoding) as stream:
            stream.write('{"step": 2, "lo')
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(type(tmp_path), "open", full)
    rows.append({"step": 2})
    rows.append({"step": 3})
    monkeypatch.undo()
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1]
    rows.append({"step": 4})
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4]
    rows.pending = '{"step": 5}\n'
    rows.flush()
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")][-1] == 5 and not rows.pending
    message = capsys.readouterr().err
    assert message.count("No space left on device") == 1 and "training continues" in message


def test_a_run_whose_log_cannot_be_written_trains_to_the_end(tiny, monkeypatch):
    """Its weights and its log equal those of an undisturbed run."""
    pretrain(replace(tiny, out=tiny.out.with_name("whole")))
    write = MetricsFile.write

    def fail_at_first(self):
        if '"step": 8' not in self.pending and not self.file.exists():
            return self.handle_error(OSError(errno.EIO, "Input/output error"), 0)
        return write(self)

    monkeypatch.setattr(MetricsFile, "write", fail_at_first)
    pretrain(tiny)
    assert same_outcome(load_outcome(tiny.out), load_outcome(tiny.out.with_name("whole")))


def test_torn_log_lines_are_skipped(tmp_path):
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


def test_training_continues_when_the_reader_of_its_output_is_gone(tiny):
    """As with `jepa pretrain … | head -3` or a closed terminal."""
    command = [sys.executable, "-c", RUN, json.dumps(to_json(replace(tiny, log_every=1)))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while b"step 2/" not in process.stdout.readline():
        assert process.poll() is None
    process.stdout.close()
    process.stderr.close()
    assert process.wait(90) == 0
    assert [row["step"] for row in read_metrics(tiny.out / "metrics.jsonl")] == list(range(1, 13))
    assert (tiny.out / "export" / "config.json").exists()
