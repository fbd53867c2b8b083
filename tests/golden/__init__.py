"""What the package computes, stored, so that moving its parts about changes none of it: see `capture`."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch and numpy are imported: sums in one order
os.environ.setdefault("MPLBACKEND", "agg")
