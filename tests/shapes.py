"""Check the array shapes in annotations during the first calls of each function in a test.

Later calls have the same shapes, nearly always, and a check takes longer than a small matmul.
"""

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable
from types import CodeType
from typing import Any

import jaxtyping

CHECKED_CALLS = 10

calls: Counter[CodeType] = Counter()  # in the current test; shared by all closures of one definition
check_all_calls = jaxtyping.jaxtyped


def check_first_calls(checked: Any = None, *, typechecker: Any) -> Any:
    """Decorate a function, or a dataclass and its `__init__`, in place of `jaxtyping.jaxtyped`."""
    if checked is None:
        return functools.partial(check_first_calls, typechecker=typechecker)
    if not isinstance(checked, type):
        return count_calls(checked, functools.partial(check_all_calls, typechecker=typechecker))
    if dataclasses.is_dataclass(checked):
        checked.__init__ = check_first_calls(checked.__init__, typechecker=typechecker)
    return checked


def count_calls(function: Callable, decorate: Callable[[Callable], Callable]) -> Callable:
    """Return the function, decorated for its first calls in a test."""
    decorated = None

    @functools.wraps(function)
    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal decorated
        if calls[function.__code__] >= CHECKED_CALLS:
            return function(*args, **kwargs)
        calls[function.__code__] += 1
        decorated = decorated or decorate(function)  # not at import: most functions are never called in a process
        return decorated(*args, **kwargs)

    return counted


def install() -> None:
    """Check everything in openjepa that is imported from now on."""
    jaxtyping.jaxtyped = check_first_calls
    jaxtyping.install_import_hook("openjepa", "beartype.beartype")
