"""`python -m openjepa` is `jepa`."""

from __future__ import annotations

from openjepa.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
