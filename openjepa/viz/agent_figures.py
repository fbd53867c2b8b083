"""The figures of an agent in a report: its values, its plans, and episodes in motion."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

from openjepa.methods.base import WorldConfig
from openjepa.training.config import Pretrain
from openjepa.viz.canvas import CaptionedFigure
from openjepa.viz.plans import show_plan
from openjepa.viz.settings import PlanOptions, ValueOptions
from openjepa.viz.values import show_value


def has_agent(settings: Pretrain) -> bool:
    """Return whether a run has what an agent in rooms plans with."""
    method = settings.method
    return isinstance(method, WorldConfig) and method.acts and not settings.data.root


def agent_figures(run: str) -> Iterator[tuple[str, Callable[[], CaptionedFigure]]]:
    """Yield the figures as name and function that draws."""
    plans = cache(lambda: show_plan(PlanOptions(run=run)))
    yield "The values", lambda: show_value(ValueOptions(run=run))[0]
    yield "The plans", lambda: plans()[0]
    yield "The imagined steps", lambda: plans()[1]
    yield "The episodes", lambda: plans()[2]
