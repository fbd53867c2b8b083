"""`python -m openjepa` is `jepa`."""

from openjepa.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
