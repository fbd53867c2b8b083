"""Lock files by what the system has for it."""

from __future__ import annotations

import errno
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
try:
    import msvcrt
except ImportError:  # everything else
    msvcrt = None

# what a file system answers that has no locks, such as some network folders of clusters
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, getattr(errno, "ENOTSUP", errno.EOPNOTSUPP))


def lock_file(stream: IO[Any]) -> bool:
    """Lock an open file for this process, until it is closed; return False where there are no locks.

    Raises BlockingIOError or, on Windows, PermissionError if another process holds the lock.
    """
    try:
        if fcntl:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        elif msvcrt:
            msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)  # pyright: ignore[reportAttributeAccessIssue]
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return False
    return bool(fcntl or msvcrt)
