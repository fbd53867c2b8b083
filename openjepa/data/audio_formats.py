"""Tell from its name or its first bytes whether a file is a recording."""

from __future__ import annotations

from openjepa.data.video_formats import CONTAINER_SUFFIXES

PLAIN_SUFFIXES = frozenset({".wav", ".wave"})  # read without an extra, unless they are compressed

SOUNDFILE_SUFFIXES = frozenset(  # read with soundfile, the extra `audio`
    (".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".aifc", ".au", ".snd", ".caf", ".w64", ".rf64")
)

COMPRESSED_SUFFIXES = frozenset({".m4a", ".aac", ".wma", ".ac3"})  # read with PyAV, the extra `video`

AUDIO_SUFFIXES = PLAIN_SUFFIXES | SOUNDFILE_SUFFIXES | COMPRESSED_SUFFIXES

VIDEO_SUFFIXES = CONTAINER_SUFFIXES  # whose sound is read with PyAV

MAGIC = (  # format, offset, bytes; the first match counts
    ("WAV", 8, b"WAVE"),
    ("FLAC", 0, b"fLaC"),
    ("Ogg", 0, b"OggS"),
    ("AIFF", 8, b"AIFF"),
    ("AIFF", 8, b"AIFC"),
    ("AU", 0, b".snd"),
    ("CAF", 0, b"caff"),
    ("MP3", 0, b"ID3"),
)

FORMAT_SUFFIXES = {  # endings that fit a format
    "WAV": PLAIN_SUFFIXES | {".rf64"},
    "FLAC": frozenset({".flac"}),
    "Ogg": frozenset({".ogg", ".oga", ".opus", ".ogv"}),
    "AIFF": frozenset({".aiff", ".aif", ".aifc"}),
    "AU": frozenset({".au", ".snd"}),
    "CAF": frozenset({".caf"}),
    "MP3": frozenset({".mp3"}),
}


def audio_format(first_bytes: bytes) -> str:
    """Return the format of a recording from its first bytes; "" of other files."""
    for name, offset, magic in MAGIC:
        if first_bytes.startswith(magic, offset) and (name != "WAV" or first_bytes[:4] in (b"RIFF", b"RF64", b"RIFX")):
            return name
    return "MP3" if is_mpeg_frame(first_bytes) else ""


def is_mpeg_frame(first_bytes: bytes) -> bool:
    """Return whether bytes start with the header of a frame of MPEG audio: MP3 without a tag before it."""
    if len(first_bytes) < 4 or first_bytes[0] != 0xFF or first_bytes[1] & 0xE0 != 0xE0:
        return False
    version, layer = first_bytes[1] >> 3 & 3, first_bytes[1] >> 1 & 3
    bitrate, rate = first_bytes[2] >> 4, first_bytes[2] >> 2 & 3
    return version != 1 and layer == 1 and bitrate not in (0, 15) and rate != 3


def is_audio(first_bytes: bytes) -> bool:
    """Return whether a file that starts like this is a recording, whatever its name."""
    return bool(audio_format(first_bytes))
