"""List recordings: sound files, or the video files of folders that have no others."""

from __future__ import annotations

from collections.abc import Sequence

from openjepa.core.types import FileList
from openjepa.data.archives import ARCHIVE_SUFFIXES
from openjepa.data.audio_formats import AUDIO_SUFFIXES, VIDEO_SUFFIXES, is_audio
from openjepa.data.listing import files_under, list_sources
from openjepa.data.never_data import LeftOutFiles


def list_sounds(roots: Sequence[str]) -> FileList:
    """List the recordings of folders, archives and lists of paths; without any, the video files, whose sound is read.

    Raises UserError if a root does not exist or has neither.
    """

    def find(root: str, left_out: LeftOutFiles) -> dict[str, int]:
        others = LeftOutFiles()
        candidates = files_under(root, AUDIO_SUFFIXES | VIDEO_SUFFIXES, ARCHIVE_SUFFIXES, others, is_audio, "recording")
        own = {path: size for path, size in candidates.items() if not is_video_name(path)}
        left_out.merge(others)
        if own:
            for path in candidates.keys() - own.keys():
                left_out.add("videos beside recordings", path)
        return own or candidates

    return list_sources(roots, find, AUDIO_SUFFIXES | VIDEO_SUFFIXES, "recording")


def is_video_name(path: str) -> bool:
    """Return whether a path ends like a video."""
    return any(path.lower().endswith(suffix) for suffix in VIDEO_SUFFIXES)
