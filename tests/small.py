"""Make small what most tests run but do not test: machine benchmarks, probes, augmented views, training curves."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from openjepa.cli import pretrain as command
from openjepa.evaluation import label_free
from openjepa.evaluation.probes import logistic
from openjepa.training.perf import hardware as machine

STRENGTHS, DRAW_TRAINING_CURVES = logistic.STRENGTHS, command.draw_training_curves


def draw_nothing(_: list[Path], out: Path) -> Path:
    """Stand in for drawing a run's curves."""
    return out


def small(put: Callable[[Any, str, Any], None] = setattr) -> None:
    """Make them small in this process, which is that of the tests or one that they start."""
    put(machine, "MATMUL_SIDES", {"cpu": (64,), "gpu": (64,)})
    put(machine, "COPY_BYTES", 2**16)
    put(logistic, "STRENGTHS", (1e-1, 1e-4))
    put(label_free, "SAMPLES", 20)
    put(label_free, "VIEWS", 2)
    put(command, "draw_training_curves", draw_nothing)
