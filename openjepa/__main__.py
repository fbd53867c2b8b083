"""`python -m openjepa` is `jepa`."""

from openjepa.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
