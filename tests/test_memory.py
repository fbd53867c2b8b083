"""What a step frees is there for the next one."""

import ctypes
import os
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
    fresh = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}  # other tests set it

    def count(line: str) -> int:
        code = CODE.format(hold=line)
        return int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env=fresh).stdout)

    held, given_back = count("retain_freed_memory()"), count("")
    assert 4 * held < given_back  # 64 MiB are 16,384 pages of 4 KiB, or 32 pages of 2 MiB
