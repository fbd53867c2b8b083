"""Start worker processes, which never run the user's script again, and say how one ended.

Python prepares a new process by importing the script of the old one. A script without `if __name__ == "__main__":`
would then start its own work in every worker. Workers here need only what the package itself defines, so the script is
hidden from them; what a script registers when it is run is therefore not registered in a worker (a plug-in is).
"""

from __future__ import annotations

import ast
import multiprocessing
import pickle
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from openjepa.core.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")

# Not fork: a forked process can wait for a thread that it does not have. Windows has spawn alone.
START_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"

UNPICKLABLE = re.compile(r"can(?:no|')t (?:pickle|get local object)", re.IGNORECASE)

SECONDS_TO_END = 5.0  # how long a process that is about to end may take

HIDING = threading.RLock()  # one thread at a time hides the script


def start_processes(start: Callable[[], Result]) -> tuple[Result, list[BaseProcess]]:
    """Call `start`, which starts processes, with the script hidden; return its value and the new processes.

    If the processes need a class that the script defines, a guarded script is imported there after all.

    Raises:
        UserError: they need a class of an unguarded script, or something that cannot be sent to another process.
    """
    before = multiprocessing.active_children()
    try:
        with hide_script():
            value = start()
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        if not UNPICKLABLE.search(str(error)):
            raise
        value = start_with_script(start, str(error))
    return value, [each for each in multiprocessing.active_children() if each not in before]


def start_with_script(start: Callable[[], Result], reason: str) -> Result:
    """Start processes that import the script, if it is guarded, because hiding it failed for `reason`."""
    if "__main__" in reason and is_guarded(getattr(sys.modules["__main__"], "__file__", None)):
        try:
            return start()
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            if not UNPICKLABLE.search(str(error)):
                raise
            reason = str(error)
    raise UserError(
        f"worker processes cannot receive what they need ({reason}): define it at the top of a file of its own and "
        'import it, put the work of the script under `if __name__ == "__main__":`, or use no workers (workers=0)'
    )


@contextmanager
def hide_script() -> Iterator[None]:
    """Put an empty module in place of the script, so that processes started meanwhile do not import it."""
    with HIDING:
        script = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = script


def is_guarded(script: str | None) -> bool:
    """Return whether a script has `if __name__ == …:` at its top level; False if it is not a file."""
    if script is None or not Path(script).is_file():
        return False
    try:
        body = ast.parse(Path(script).read_bytes()).body
    except (SyntaxError, ValueError):
        return False
    names = (node for each in body if isinstance(each, ast.If) for node in ast.walk(each.test))
    return any(isinstance(node, ast.Name) and node.id == "__name__" for node in names)


def map_in_processes(
    function: Callable[[Item], Result], items: Iterable[Item], count: int, chunksize: int = 1
) -> Iterator[Result]:
    """Yield function(item) for every item, in order, computed by `count` processes.

    Raises:
        UserError: a process ended early.
    """
    processes: Sequence[BaseProcess] = ()
    try:
        with ProcessPoolExecutor(count, multiprocessing.get_context(START_METHOD)) as pool:
            results, processes = start_processes(lambda: pool.map(function, items, chunksize=chunksize))
            yield from results
    except BrokenProcessPool as error:  # outside the pool, whose thread reads the statuses too, and each only once
        ending = describe_ending(processes)
        raise UserError(f"a worker process {ending}: repeat the command with --workers {count // 2}") from error


def describe_ending(processes: Sequence[Any]) -> str:
    """Say how the first of these processes ended that ended by itself, as in "was ended by SIGSEGV"."""
    codes = ending_codes(processes)
    if not codes:
        return "ended unexpectedly"
    if codes[0] > 0:
        return f"ended with status {codes[0]} (its error is printed above)"
    if codes[0] == -getattr(signal, "SIGKILL", 9):
        return "was killed by SIGKILL, perhaps because memory ran out"
    name = signal.Signals(-codes[0]).name if -codes[0] in set(signal.Signals) else f"signal {-codes[0]}"
    return f"was ended by {name}"


def ending_codes(processes: Sequence[Any]) -> list[int]:
    """Return the statuses of the processes that failed, without those that were ended because another one had.

    Waits up to SECONDS_TO_END for a status, because the pipe of a process may close before its status arrives.
    """
    until = time.monotonic() + SECONDS_TO_END
    while True:
        codes = [each.exitcode for each in processes if each.exitcode]
        own = [code for code in codes if code != -signal.SIGTERM]  # when one dies, the others get SIGTERM
        running = [each.sentinel for each in processes if each.exitcode is None]
        if own or not running or time.monotonic() > until:
            return own or codes
        wait(running, timeout=0.1)
