"""Errors that the user can fix; the message says what to type."""

from __future__ import annotations

import signal


class UserError(Exception):
    """Something that the person at the keyboard can mend; the message is a sentence that says how."""


class Interrupted(Exception):
    """A signal asked the run to stop; everything is saved."""

    def __init__(self, number: int):
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


class RunError(UserError):
    """The run cannot go on; the message says why and what to do."""
