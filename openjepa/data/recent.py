"""Keep what was computed for recently used files in memory, up to a total size."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class RecentValues(Generic[Value]):
    """Values of a process by key; the one used longest ago makes room for a new one."""

    def __init__(self, capacity: int, size_of: Callable[[Value], int]):
        self.capacity, self.size_of, self.total = capacity, size_of, 0
        self.values: OrderedDict[Hashable, Value] = OrderedDict()
        self.lock = threading.Lock()

    def get(self, key: Hashable, compute: Callable[[], Value]) -> Value:
        """Return the value of a key, computed if it is not in memory."""
        with self.lock:
            if key in self.values:
                self.values.move_to_end(key)
                return self.values[key]
        value = compute()  # outside the lock: other threads read other files meanwhile
        with self.lock:
            if key not in self.values:
                self.values[key] = value
                self.total += self.size_of(value)
            while self.total > self.capacity and len(self.values) > 1:
                self.total -= self.size_of(self.values.popitem(last=False)[1])
        return value
