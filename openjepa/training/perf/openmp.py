"""Set what OpenMP reads from the environment when torch is imported: the number of threads, and how they wait."""

from __future__ import annotations

import os
import sys

from openjepa.core.cpus import available_cores, describe_quota

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # settings of the user that decide how threads wait

# Rounds of a loop, some 25 µs, before a thread sleeps; libgomp's own default is 300,000. Measurements:
# docs/results/performance.md.
SPIN_COUNT = 1000


def set_openmp_defaults() -> None:
    """Limit the threads of torch to the CPU quota, and let threads that wait for others give up their core soon.

    A thread that waits without sleeping takes the time that the other thread needs, if anything else uses the cores:
    our own loader processes, or another run. A setting of the user stays. Does nothing once torch is imported, because
    OpenMP has read the environment then.
    """
    if "torch" in sys.modules:
        return
    if describe_quota():
        os.environ.setdefault("OMP_NUM_THREADS", str(available_cores()))
    if not any(name in os.environ for name in WAITING):
        os.environ["GOMP_SPINCOUNT"] = str(SPIN_COUNT)
