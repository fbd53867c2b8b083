"""Tell from its name or its first bytes whether a file is a video."""

from __future__ import annotations

from openjepa.data.image_formats import sniff_format

CONTAINER_SUFFIXES = frozenset(  # read with PyAV
    (
        ".mp4", ".m4v", ".mov", ".3gp", ".3g2", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".mpe", ".m2v", ".vob",
        ".ts", ".mts", ".m2ts", ".flv", ".f4v", ".wmv", ".asf", ".ogv", ".nut", ".mjpeg", ".y4m",
    )
)  # fmt: skip

ANIMATION_SUFFIXES = frozenset({".gif", ".apng"})  # read with Pillow

VIDEO_SUFFIXES = CONTAINER_SUFFIXES | ANIMATION_SUFFIXES | {".npy"}

ANIMATED_FORMATS = frozenset({"GIF", "PNG", "WEBP"})  # of images that may have several frames

TS_PACKET = 188  # bytes; each starts with the same byte

MAGIC = (  # format, its first bytes
    ("MPEG", b"\0\0\1\xba"),  # a program stream
    ("MPEG", b"\0\0\1\xb3"),  # a sequence of MPEG-1 or MPEG-2 without a container
    ("FLV", b"FLV\1"),
    ("ASF", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),
    ("Ogg", b"OggS"),
    ("NUT", b"nut/multimedia container\0"),
    ("Y4M", b"YUV4MPEG2 "),
)


def video_format(first_bytes: bytes) -> str:
    """Return the format of a video, an animated image or an array from its first bytes; "" of other files."""
    for name, magic in MAGIC:
        if first_bytes.startswith(magic):
            return name
    for start in (0, 4):  # 4: each packet follows a time stamp, as cameras write it
        if first_bytes[start :: TS_PACKET + start][:2] == b"\x47\x47":
            return "MPEG-TS"
    name = sniff_format(first_bytes)
    return name if name in ("MP4", "Matroska", "AVI", "NumPy", *ANIMATED_FORMATS) else ""


def is_video(first_bytes: bytes) -> bool:
    """Return whether a file that starts like this is a video, a GIF or an array, whatever its name."""
    return video_format(first_bytes) in {name for name, _ in MAGIC} | {"MPEG-TS", "MP4", "Matroska", "AVI", "GIF"}
