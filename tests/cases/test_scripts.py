"""Scripts without a guard use worker processes, which never run the script again."""

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

from openjepa.core import processes
from openjepa.core.errors import UserError
from openjepa.core.processes import describe_ending, is_guarded
from tests.cases.inputs import fill
from tests.conftest import slow

ROOT = Path(__file__).parents[2]

# a marker file gets a line each time that the script runs
COUNT = """
with open("runs.txt", "a") as stream:
    stream.write(__name__ + "\\n")
"""

SQUARES = f"""{COUNT}
from openjepa.core.processes import map_in_processes
from operator import neg
assert list(map_in_processes(neg, range(6), 2, chunksize=2)) == [0, -1, -2, -3, -4, -5]
"""

GUARDED = f"""{COUNT}
import multiprocessing
from openjepa.core.processes import START_METHOD, start_processes

def double(number):
    assert number == 2

def start():
    process = multiprocessing.get_context(START_METHOD).Process(target=double, args=(2,))
    process.start()
    return process

if __name__ == "__main__":
    process, started = start_processes(start)
    process.join()
    assert started == [process] and process.exitcode == 0
"""

README = f"""{COUNT}
from pathlib import Path
from openjepa import JEPA, Image, PredictorConfig, Pretrain, ViTConfig, load, pretrain

data = Image(root=("photos",), size=(32, 32), patch=4)
method = JEPA(ViTConfig(dim=48, depth=1, num_heads=2), PredictorConfig(dim=24, depth=1))
run = pretrain(
    Pretrain(data, method, steps=2, batch_size=4, out=Path("run"), device="cpu", threads=1, workers=1, report=False)
)
encoder = load(run)
images = data.listing().paths[:4]
assert encoder.features(images).shape == (4, 48)
"""


def run_python(arguments: list[str], folder: Path, stdin: str = "") -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, input=stdin, text=True, capture_output=True, timeout=280
    )


def runs_of_script(folder: Path) -> list[str]:
    return (folder / "runs.txt").read_text().split()


@pytest.mark.parametrize(
    "arguments",
    [
        ["script.py"],
        ["-m", "script"],
        ["-"],
        ["-i"],
        ["-c", "import script"],
        ["-c", "import runpy; runpy.run_path('script.py', run_name='__main__')"],
        ["script.py", "--epochs", "3"],
    ],
    ids=" ".join,
)
def test_a_script_without_a_guard_runs_once_however_it_is_started(arguments, tmp_path):
    (tmp_path / "script.py").write_text(SQUARES)
    stdin = SQUARES if arguments in (["-"], ["-i"]) else ""
    result = run_python(arguments, tmp_path, stdin)
    assert result.returncode == 0 and "Error" not in result.stderr, result.stderr
    assert len(runs_of_script(tmp_path)) == 1


def test_a_guarded_script_may_send_what_it_defines(tmp_path):
    (tmp_path / "script.py").write_text(GUARDED)
    result = run_python(["script.py"], tmp_path)
    assert result.returncode == 0, result.stderr
    assert set(runs_of_script(tmp_path)) == {"__main__", "__mp_main__"}


@pytest.mark.parametrize("arguments", [["script.py"], ["-"]], ids=" ".join)
def test_what_an_unguarded_script_defines_is_refused_in_one_sentence(arguments, tmp_path):
    script = GUARDED.replace('if __name__ == "__main__":', "if True:")
    (tmp_path / "script.py").write_text(script)
    result = run_python(arguments, tmp_path, script if arguments == ["-"] else "")
    last = result.stderr.strip().splitlines()[-1]
    assert "double" in last and "file of its own" in last and "if __name__ ==" in last and "workers=0" in last
    assert runs_of_script(tmp_path) == ["__main__"]


def test_what_cannot_be_sent_at_all_is_refused_in_one_sentence():
    process = multiprocessing.get_context(processes.START_METHOD).Process(target=lambda: 0)
    with pytest.raises(UserError, match="worker processes cannot receive what they need"):
        processes.start_processes(process.start)


def test_the_script_is_back_after_processes_started_also_after_an_error():
    script = sys.modules["__main__"]

    def fail() -> None:
        assert sys.modules["__main__"] is not script
        raise ValueError("cannot start")

    with pytest.raises(ValueError, match="cannot start"):
        processes.start_processes(fail)
    assert sys.modules["__main__"] is script


@slow
def test_the_readme_block_runs_as_a_file_on_photographs_that_workers_load(tmp_path):
    fill(tmp_path / "photos", 8, side=128)
    (tmp_path / "script.py").write_text(README)
    result = run_python(["script.py"], tmp_path)
    assert result.returncode == 0, result.stderr
    assert runs_of_script(tmp_path) == ["__main__"]


@slow
def test_every_verb_with_processes_runs_from_a_script(tmp_path):
    fill(tmp_path / "photos", 510, side=24)
    script = f"""{COUNT}
from pathlib import Path
from openjepa import Doctor, doctor
from openjepa.cli.shards import Shards, shards
doctor(Doctor(("photos",), out=Path("checked"), workers=2))
shards(Shards("photos", Path("packed"), samples=255, workers=2))
"""
    result = run_python(["-"], tmp_path, script)
    assert result.returncode == 0, result.stderr
    assert runs_of_script(tmp_path) == ["__main__"] and len(list((tmp_path / "packed").glob("*.tar"))) == 2


@pytest.mark.parametrize(
    ("ending", "expected"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "was killed by SIGKILL, perhaps because memory ran out"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "was ended by SIGSEGV"),
        ("os._exit(3)", "ended with status 3"),
    ],
)
def test_a_worker_that_ends_early_is_an_error_that_tells_its_cause(ending, expected, tmp_path):
    (tmp_path / "ends.py").write_text(f"import os, signal\n\n\ndef end(_):\n    {ending}\n")
    work = "list(map_in_processes(end, [1, 2], 2))"
    script = f"from ends import end\nfrom openjepa.core.processes import map_in_processes\n{work}"
    last = run_python(["-"], tmp_path, script).stderr.strip().splitlines()[-1]
    assert f"a worker process {expected}" in last and "repeat the command with --workers 1" in last
    assert ("memory" in last) == ("SIGKILL" in last)


def test_a_worker_without_a_status_is_not_blamed_on_memory():
    assert describe_ending([]) == "ended unexpectedly"


@pytest.mark.parametrize(
    ("script", "guarded"),
    [
        ('if __name__ == "__main__":\n    pass', True),
        ("if '__main__' == __name__: pass", True),
        ("if __name__ == '__main__' and True: pass", True),
        ("print('if __name__ == 1')", False),
        ("def f():\n    if __name__ == '__main__': pass", False),
        ("this is not python", False),
    ],
)
def test_a_guard_is_found_at_the_top_level_alone(script, guarded, tmp_path):
    (tmp_path / "script.py").write_text(script)
    assert is_guarded(str(tmp_path / "script.py")) == guarded
    assert not is_guarded(None) and not is_guarded("<stdin>")
