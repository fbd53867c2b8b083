"""Choose the settings class of a command; `show` and `decoder` have one for each action."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from openjepa.cli.settings import DECODER_ACTIONS, SETTINGS, Show
from openjepa.core.console import print_line
from openjepa.core.errors import UserError
from openjepa.viz.settings import FIGURE_OPTIONS

DECODER_HELP = """jepa decoder: show what a representation contains, by sampling images from it

  jepa decoder train RUN                train a decoder on frozen features of a run; the run does not change
  jepa decoder sample DECODER IMAGES    sample each image several times from its features
  jepa decoder measure DECODER IMAGES   measure whether the samples agree with those features, next to a control

jepa decoder train --help lists the settings of an action"""


def choose_settings(name: str, arguments: list[str]) -> tuple[type, str, list[str]]:
    """Return the class of a command's settings, the command as typed, and the arguments left to parse."""
    if name == "show":
        return choose_figure(arguments)
    if name == "decoder":
        return choose_decoder_action(arguments)
    return SETTINGS[name], f"jepa {name}", arguments


def choose_figure(arguments: list[str]) -> tuple[type, str, list[str]]:
    """Choose the settings of the figure that is named first, else those of the overview.

    Raises UserError if the first argument is neither a figure nor a path, but similar to the name of a figure.
    """
    first = arguments[0] if arguments else ""
    if first in FIGURE_OPTIONS:
        return FIGURE_OPTIONS[first], f"jepa show {first}", arguments[1:]
    similar = get_close_matches(first, FIGURE_OPTIONS, 1)
    if similar and not Path(first).exists():
        raise UserError(f"unknown figure {first!r}: did you mean jepa show {similar[0]}?")
    return Show, "jepa show", arguments


def choose_decoder_action(arguments: list[str]) -> tuple[type, str, list[str]]:
    """Choose the settings of the action that is named first. Raises UserError if it is not an action."""
    action = arguments[0] if arguments else ""
    if action in ("-h", "--help"):
        print_line(DECODER_HELP)
        raise SystemExit(0)
    if action not in DECODER_ACTIONS:
        raise UserError(
            f"no decoder action {action!r}: use {', '.join(DECODER_ACTIONS)}, for example jepa decoder train RUN"
        )
    return DECODER_ACTIONS[action], f"jepa decoder {action}", arguments[1:]
