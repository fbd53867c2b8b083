"""Errors that the user can fix; the message says what to type."""

from __future__ import annotations

import signal


class UserError(Exception):
    """An error that the user can fix; the message says how."""


class Interrupted(Exception):
    """A signal asked the run to stop; everything is saved."""

    def __init__(self, signal_number: int):
        super().__init__(f"stopped by {signal.Signals(signal_number).name}")
        self.signal_number = signal_number


class RunError(UserError):
    """The run cannot continue; the message says why and what to do."""
