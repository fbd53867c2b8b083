"""A built wheel has everything that a run needs: it works where no clone is."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_a_wheel_helps_and_trains_ten_steps(photos, tmp_path):
    def run(*words: str, **environment: str) -> str:
        done = subprocess.run(
            [sys.executable, *words],
            cwd=tmp_path,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    source = tmp_path / "source"  # building writes into the folder
    shutil.copytree(ROOT / "openjepa", source / "openjepa", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = ("-m", "pip", "--quiet", "--disable-pip-version-check")
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", "wheel", str(source))
    (wheel,) = (tmp_path / "wheel").glob("openjepa-*.whl")
    run(*pip, "install", "--no-deps", "--no-index", "--target", "installed", str(wheel))
    paths = {"PYTHONPATH": str(tmp_path / "installed")}
    jepa = ("-c", "import sys; from openjepa.cli.main import main; sys.exit(main())")
    assert str(tmp_path) in run("-c", "import openjepa; print(openjepa.__file__)", **paths)
    assert "jepa pretrain" in run(*jepa, "--help", **paths)
    short = ("--steps", "10", "--batch-size", "8", "--threads", "1", "--workers", "0", "--device", "cpu")
    run(*jepa, "pretrain", "--data.root", str(photos), "--out", "run", *short, **paths)
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000 and (tmp_path / "run" / "export").is_dir()
