"""What a step frees is there for the next one."""

import ctypes
import subprocess
import sys

import pytest

CODE = """
import resource
from openjepa.training.perf.allocator import retain_freed_memory
{hold}
import torch
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(2**24).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(min(faults() for _ in range(10)))  # the system may take pages away at any moment
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
def test_held_memory_is_not_asked_for_again():
    """64 MiB, allocated and freed again and again, in pages that the system had to find."""
    pairs = [
        tuple(
            int(subprocess.run([sys.executable, "-c", CODE.format(hold=line)], capture_output=True, check=True).stdout)
            for line in ("retain_freed_memory()", "")
        )
        for _ in range(3)  # now and then the system joins pages by itself
    ]
    assert any(4 * held < given_back for held, given_back in pairs), pairs  # 16,384 pages, or 32 large ones
