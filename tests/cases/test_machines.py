"""Quotas of containers, systems without POSIX, and surroundings that lack a home, a folder or an encoding."""

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import openjepa
from openjepa.cli.main import expand_tilde, main
from openjepa.core import cpus, distributed, fileio, locks
from openjepa.core.cpus import available_cores, cpu_quota, describe_quota
from openjepa.core.distributed import process_cores
from openjepa.core.errors import UserError
from openjepa.core.fileio import atomic_write, fsync_path, lock_folder
from openjepa.training.perf.allocator import retain_freed_memory
from openjepa.training.perf.hardware import describe_memory
from openjepa.training.perf.openmp import SPIN_COUNT, set_openmp_defaults
from openjepa.training.run import print_summary
from tests.cases.inputs import fill
from tests.conftest import CPU, slow

PACKAGE = Path(openjepa.__file__).parent

# start `jepa` where the named modules, functions and signals are missing, as on Windows and macOS
BLOCK = """
import multiprocessing, os, signal, sys
for name in ("fcntl", "resource", "msvcrt"):
    sys.modules[name] = None
for owner, names in ((os, ("pread", "sched_getaffinity", "posix_fallocate", "fork")),
                     (signal, ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGPIPE"))):
    for name in names:
        if hasattr(owner, name):
            delattr(owner, name)
multiprocessing.get_all_start_methods = lambda: ["spawn"]
from openjepa.cli.main import main
sys.exit(main())
"""


def jepa(arguments: list[str], folder: Path, code: str = BLOCK, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONPATH": str(PACKAGE.parent), "OMP_NUM_THREADS": "1", **environment}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=folder, env=variables, text=True, capture_output=True, timeout=280)


@pytest.fixture
def container(tmp_path, monkeypatch):
    """Return a function that writes the control groups of a container with so many cores."""
    monkeypatch.setattr(cpus, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(cpus, "OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))

    def write(own: str, **files: str) -> None:
        (tmp_path / "own").write_text(own)
        for name, content in files.items():
            file = tmp_path / "cgroup" / name.replace("__", "/").replace("cpu_max", "cpu.max").replace("cfs", "cpu.cfs")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content + "\n")

    return write


@pytest.mark.parametrize(
    ("limit", "cores"),
    [
        ("50000 100000", 1),
        ("100000 100000", 1),
        ("120000 100000", 1),
        ("150000 100000", 2),
        ("250000 100000", 3),
        ("400000 50000", 8),
        ("3200000 100000", 16),
        ("max 100000", 16),
        ("1000 100000", 1),
        ("nonsense", 16),
        ("", 16),
        ("0 0", 16),
    ],
)
def test_cores_follow_the_quota_and_never_exceed_the_affinity(limit, cores, container):
    container("0::/\n", cpu_max=limit)
    assert available_cores() == cores


def test_the_smallest_quota_above_a_nested_group_counts(container):
    container("0::/pods/one/job\n", pods__cpu_max="800000 100000", pods__one__cpu_max="300000 100000")
    assert cpu_quota() == 3.0
    container("0::/pods/one/job\n", pods__one__job__cpu_max="max 100000", cpu_max="200000 100000")
    assert cpu_quota() == 2.0


def test_a_path_outside_of_the_container_does_not_hide_its_own_quota(container):
    container("0::/../../kubepods/podX/cY\n", cpu_max="200000 100000")
    assert available_cores() == 2


@pytest.mark.parametrize("folder", ["cpu", "cpu,cpuacct"])
def test_a_quota_of_version_1_counts(folder, container):
    own = "12:memory:/docker/x\n4:cpu,cpuacct:/docker/x\n1:name=systemd:/\n0::/\n"
    container(own, **{f"{folder}__cfs_quota_us": "350000", f"{folder}__cfs_period_us": "100000"})
    assert cpu_quota() == 3.5 and available_cores() == 4
    container(own, **{f"{folder}__docker__x__cfs_quota_us": "50000", f"{folder}__docker__x__cfs_period_us": "100000"})
    assert cpu_quota() == 0.5
    container(own, **{f"{folder}__docker__x__cfs_quota_us": "-1", f"{folder}__cfs_quota_us": "-1"})
    assert cpu_quota() is None


def test_without_control_groups_or_affinity_all_cores_count(tmp_path, monkeypatch):
    monkeypatch.setattr(cpus, "CGROUPS", tmp_path / "none")
    monkeypatch.setattr(cpus, "OWN_CGROUPS", tmp_path / "none")
    monkeypatch.delattr(os, "sched_getaffinity")
    assert available_cores() == os.cpu_count() and describe_quota() == ""


def test_the_summary_of_a_run_names_a_quota_that_limits_it(container, tiny, capsys):
    container("0::/\n", cpu_max="50000 100000")
    print_summary(tiny, CPU, 96, 0)
    assert "1 threads, 0 workers (a CPU quota of 0.5 of 16 cores)" in capsys.readouterr().out
    container("0::/\n", cpu_max="max 100000")
    print_summary(tiny, CPU, 96, 0)
    assert "quota" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("variables", "cores"),
    [
        ({}, 16),
        ({"LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "4"}, 4),  # torchrun: the processes share all cores
        ({"LOCAL_WORLD_SIZE": "32", "WORLD_SIZE": "32"}, 0.5),
        # Slurm starts the processes: each has its own cores, and sees these alone, or all of the machine
        ({"LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "4", "SLURM_NTASKS": "4", "SLURM_CPUS_PER_TASK": "16"}, 16),
        ({"LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "4", "SLURM_NTASKS": "4", "SLURM_CPUS_PER_TASK": "6"}, 6),
        # torchrun in one task of Slurm: its processes share the cores of the task
        ({"LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "4", "SLURM_NTASKS": "1", "SLURM_CPUS_PER_TASK": "16"}, 4),
    ],
)
def test_processes_on_one_machine_share_its_cores_and_tasks_of_slurm_have_their_own(variables, cores, monkeypatch):
    for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE", "SLURM_NTASKS", "SLURM_CPUS_PER_TASK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(distributed, "available_cores", lambda: 16)
    assert process_cores() == cores


def test_nothing_else_counts_cores_or_starts_processes():
    counting = re.compile(r"cpu_count|sched_getaffinity|process_cpu_count")
    starting = re.compile(r"ProcessPoolExecutor|get_context\(|os\.fork\(|multiprocessing_context=\"")
    for file in PACKAGE.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        assert file.name == "cpus.py" or not counting.search(text), file
        assert file.name == "processes.py" or not starting.search(text), file


def test_torch_is_limited_to_the_quota_and_waits_briefly_unless_the_user_chose(container, monkeypatch):
    container("0::/\n", cpu_max="250000 100000")
    names = ("OMP_NUM_THREADS", "GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME")
    for name in names:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    set_openmp_defaults()  # torch is imported: too late
    assert not any(name in os.environ for name in names)
    monkeypatch.delitem(sys.modules, "torch")
    set_openmp_defaults()
    assert os.environ["OMP_NUM_THREADS"] == "3" and os.environ["GOMP_SPINCOUNT"] == str(SPIN_COUNT)
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    set_openmp_defaults()
    assert os.environ["OMP_NUM_THREADS"] == "7" and "GOMP_SPINCOUNT" not in os.environ


def test_importing_the_package_leaves_the_environment_alone(tmp_path):
    code = "import os; before = dict(os.environ); import openjepa, openjepa.cli.main; assert before == dict(os.environ)"
    assert subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent).returncode == 0


@pytest.mark.parametrize("command", [["--help"], ["pretrain", "--help"], ["recipes"]], ids=" ".join)
def test_help_works_without_posix(command, tmp_path):
    result = jepa(command, tmp_path)
    assert result.returncode == 0 and result.stdout and not result.stderr, result.stderr


@slow
def test_a_run_its_features_and_the_doctor_work_without_posix(tmp_path):
    fill(tmp_path / "photos", 12)
    small = "--method.encoder.dim 48 --method.encoder.depth 6 --method.encoder.num-heads 2 --method.predictor.dim 24"
    flags = f"--steps 2 --batch-size 4 --threads 1 --workers 0 --no-report --device cpu {small}"
    for command in (
        "doctor photos --out checked",
        f"pretrain --data.root photos --out run {flags}",
        "embed run photos --out features.safetensors --device cpu",
        "embed run photos --out features.npy --device cpu",
        "shards photos packed --samples 6 --workers 2",
    ):
        result = jepa(command.split(), tmp_path)
        assert result.returncode == 0 and "Traceback" not in result.stderr, f"{command}: {result.stderr}"
    assert (tmp_path / "features.npy").exists() and len(list((tmp_path / "packed").glob("*.tar"))) == 2


def test_peak_memory_is_unknown_without_the_module_resource(monkeypatch):
    from openjepa.training.perf import hardware

    assert hardware.peak_memory(CPU) > 2**20  # pyright: ignore[reportOptionalOperand]
    monkeypatch.setattr(hardware, "resource", None)
    assert hardware.peak_memory(CPU) is None
    assert describe_memory(None) == "unknown on this system" and describe_memory(2**31) == "2.0 GiB"


@pytest.mark.parametrize("error", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_disk_without_locks_is_a_warning(error, tmp_path, monkeypatch, capsys):
    def refuse(*_) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    with lock_folder(tmp_path, "training"):
        pass
    assert "cannot be locked" in capsys.readouterr().err


def test_a_lock_of_windows_keeps_others_out(tmp_path, monkeypatch):
    class Windows:
        LK_NBLCK = 2
        held = False

        def locking(self, handle: int, mode: int, count: int) -> None:
            if self.held:
                raise PermissionError(errno.EACCES, "Permission denied")
            self.held = True

    monkeypatch.setattr(locks, "fcntl", None)
    monkeypatch.setattr(locks, "msvcrt", Windows())
    with (
        lock_folder(tmp_path, "training"),
        pytest.raises(UserError, match="another process is training"),
        lock_folder(tmp_path, "training"),
    ):
        pass


def test_a_mapped_file_of_windows_is_replaced_or_kept_if_it_is_the_same(tmp_path, monkeypatch):
    def refuse(self, target):
        raise PermissionError(errno.EACCES, "in use")

    file = tmp_path / "file"
    file.write_bytes(b"same")
    monkeypatch.setattr(type(tmp_path), "replace", refuse)
    with pytest.raises(PermissionError), atomic_write(file) as temporary:
        temporary.write_bytes(b"same")
    monkeypatch.setattr(fileio, "WINDOWS", True)
    with atomic_write(file) as temporary:
        temporary.write_bytes(b"same")
    with pytest.raises(PermissionError), atomic_write(file) as temporary:
        temporary.write_bytes(b"other")
    with atomic_write(tmp_path / "new") as temporary:
        temporary.write_bytes(b"other")
    assert file.read_bytes() == b"same" and (tmp_path / "new").read_bytes() == b"other"


def test_a_network_folder_that_cannot_flush_names_is_accepted_and_a_failing_file_is_not(tmp_path, monkeypatch):
    def refuse(handle: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    (tmp_path / "file").write_text("x")
    monkeypatch.setattr(os, "fsync", refuse)
    fsync_path(tmp_path)
    with pytest.raises(OSError, match="Invalid argument"):
        fsync_path(tmp_path / "file")


def test_memory_is_left_alone_where_the_c_library_is_not_of_linux(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr("ctypes.CDLL", lambda name: pytest.fail("there is no such library"))
    retain_freed_memory()


def test_a_folder_that_was_removed_under_the_shell_is_one_sentence(tmp_path):
    code = f"import os, sys; os.chdir({str(tmp_path)!r}); os.rmdir({str(tmp_path)!r})\n{BLOCK}"
    result = jepa(["doctor", "photos"], PACKAGE.parent, code)
    assert result.returncode == 1
    assert result.stderr == "jepa: the working folder has been removed: cd to a folder that exists\n"


def test_a_home_that_does_not_exist_is_one_sentence(capsys):
    assert main(["doctor", "~nobody-has-this-name/photos"]) == 1
    assert "~nobody-has-this-name/photos is below a home folder that" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("--out=~/runs", "--out=/home/me/runs"),
        ("--data.root=~/photos", "--data.root=/home/me/photos"),
        ("~/photos", "/home/me/photos"),
        ("--out", "--out"),
        ("--board=a~b", "--board=a~b"),
        ("photos~", "photos~"),
        ("new\nline", "new\nline"),
    ],
)
def test_a_tilde_that_the_shell_leaves_is_the_home_folder(typed, expected, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert expand_tilde(typed) == expected


@slow
@pytest.mark.parametrize(
    "variables", [{"LC_ALL": "C"}, {"TMPDIR": "/no/such/folder"}, {"HOME": "/no/such/folder"}], ids=str
)
def test_surroundings_that_lack_something_do_not_end_a_command(variables, tmp_path):
    fill(tmp_path / "photos", 4)
    code = "import sys; from openjepa.cli.main import main; sys.exit(main())"
    result = jepa(["doctor", "photos", "--out", "checked"], tmp_path, code, **variables)
    assert result.returncode == 0 and "Traceback" not in result.stderr, result.stderr
    assert json.loads((tmp_path / "checked" / "doctor.json").read_text())
