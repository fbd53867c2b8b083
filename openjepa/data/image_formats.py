"""Tell from its first bytes what a file is: an image format that can be read, or something else."""

from __future__ import annotations

import codecs
import re

FORMAT_SUFFIXES = {  # formats that can be read -> file endings in lower case; the first one names new files
    "JPEG": (".jpeg", ".jpg", ".jpe", ".jfif", ".jif", ".pjpeg", ".pjp", ".mpo"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tiff", ".tif", ".btf"),
    "GIF": (".gif",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "AVIF": (".avif", ".avifs"),
    "HEIC": (".heic", ".heif", ".hif", ".heics"),  # with the extra heif
    "JPEG 2000": (".jp2", ".j2k", ".jpx", ".jpf", ".j2c", ".jpc"),
    "NumPy": (".npy",),
}

IMAGE_FORMATS = frozenset(FORMAT_SUFFIXES)

IMAGE_SUFFIXES = frozenset().union(*FORMAT_SUFFIXES.values())

SNIFF_BYTES = 512  # from the start of a file: enough for every signature

SIGNATURES = (  # format, offset, bytes; the first match counts
    ("JPEG", 0, b"\xff\xd8\xff"),
    ("PNG", 0, b"\x89PNG\r\n\x1a\n"),
    ("GIF", 0, b"GIF87a"),
    ("GIF", 0, b"GIF89a"),
    ("NumPy", 0, b"\x93NUMPY"),
    ("JPEG 2000", 0, b"\0\0\0\x0cjP  \r\n\x87\n"),
    ("JPEG 2000", 0, b"\xff\x4f\xff\x51"),
    ("camera raw", 8, b"CR\x02\0"),  # of Canon; also a TIFF
    ("camera raw", 0, b"FUJIFILMCCD-RAW"),
    ("camera raw", 0, b"IIRO"),
    ("camera raw", 0, b"IIRS"),
    ("camera raw", 0, b"IIU\0"),
    *(("TIFF", 0, magic) for magic in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"MM*\0", b"II\0*")),
    ("JPEG XL", 0, b"\xff\x0a"),
    ("JPEG XL", 0, b"\0\0\0\x0cJXL \r\n\x87\n"),
    ("DICOM", 128, b"DICM"),
    ("NIfTI", 344, b"n+1\0"),
    ("NIfTI", 344, b"ni1\0"),
    ("HDF5", 0, b"\x89HDF\r\n\x1a\n"),
    ("MATLAB", 0, b"MATLAB 5.0"),
    ("FITS", 0, b"SIMPLE  ="),
    ("CZI", 0, b"ZISRAWFILE"),
    ("ND2", 0, b"\xda\xce\xbe\x0a"),
    ("OpenEXR", 0, b"\x76\x2f\x31\x01"),
    ("Radiance HDR", 0, b"#?RADIANCE"),
    ("Photoshop", 0, b"8BPS"),
    ("DDS", 0, b"DDS "),
    ("QOI", 0, b"qoif"),
    ("icon", 0, b"\0\0\1\0"),
    ("PDF", 0, b"%PDF"),
    ("PostScript", 0, b"%!PS"),
    ("AppleDouble", 0, b"\0\x05\x16\x07"),
    ("AppleDouble", 0, b"\0\x05\x16\0"),
    ("DS_Store", 0, b"\0\0\0\1Bud1"),
    ("OLE", 0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"),
    ("shortcut", 0, b"L\0\0\0\x01\x14\x02\0"),
    ("ZIP", 0, b"PK\x03\x04"),
    ("ZIP", 0, b"PK\x05\x06"),
    ("gzip", 0, b"\x1f\x8b"),
    ("7-Zip", 0, b"7z\xbc\xaf\x27\x1c"),
    ("RAR", 0, b"Rar!\x1a\x07"),
    ("tar", 257, b"ustar"),
    ("Parquet", 0, b"PAR1"),
    ("SQLite", 0, b"SQLite format 3\0"),
    ("Matroska", 0, b"\x1a\x45\xdf\xa3"),
    ("program", 0, b"\x7fELF"),
)

BOX_BRANDS = (  # of files made of boxes ("ftyp"): format -> brands
    ("AVIF", {b"avif", b"avis"}),
    ("HEIC", {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}),
    ("camera raw", {b"crx "}),
)

BMP_HEADERS = {12, 16, 40, 52, 56, 64, 108, 124}  # sizes of the header at byte 14

TEXT_MARKS = (  # format -> pattern of the first bytes in lower case
    ("Git LFS pointer", rb"version https://git-lfs"),
    ("git-annex pointer", rb"(\.\./)*(\.git)?/annex/objects/"),
    ("shortcut", rb"\[internetshortcut\]"),
    ("data URL", rb"data:image/"),
    ("HTML", rb"(?s).*<(!doctype html|html|head|body)[\s>]"),
    ("SVG", rb"(?s).*<svg[\s>]"),
    ("XML", rb"<\?xml"),
    ("JSON", rb"[{\[]"),
)

DESCRIPTIONS = {  # format that cannot be read -> what to say about such a file
    "empty": "empty",
    "zeros": "full of zeros: an interrupted copy?",
    "text": "text, not an image",
    "HTML": "an HTML page, not an image: a failed download?",
    "XML": "XML, not an image: a failed download?",
    "JSON": "JSON, not an image: a failed download?",
    "data URL": "a data: URL in text: decode its base64 into an image file",
    "SVG": "an SVG drawing: convert it to PNG",
    "Git LFS pointer": "a Git LFS pointer, not the image: run git lfs pull in its repository",
    "git-annex pointer": "a git-annex pointer, not the image: run git annex get in its repository",
    "AppleDouble": "an AppleDouble file, the companion that macOS writes beside an image: remove it",
    "DS_Store": "a folder description of macOS, not an image: remove it",
    "shortcut": "a shortcut of Windows, not the image that it names",
    "OLE": "a Thumbs.db or Office file of Windows, not an image",
    "DICOM": "a DICOM image: convert it to PNG, TIFF or .npy, for example with pydicom",
    "NIfTI": "a NIfTI volume: write its slices as .npy, for example with nibabel",
    "camera raw": "a raw image of a camera: convert it to TIFF or JPEG",
    "Photoshop": "a Photoshop document: export it as PNG or JPEG",
    "MP4": "an MP4 or QuickTime video, not an image: write its frames as images, for example with ffmpeg",
    "Matroska": "a Matroska or WebM video, not an image: write its frames as images, for example with ffmpeg",
    "AVI": "an AVI video, not an image: write its frames as images, for example with ffmpeg",
    "PDF": "a PDF document, not an image: convert its pages to PNG",
    "ZIP": "a ZIP archive, not an image: unpack it",
    "gzip": "compressed with gzip: decompress it",
    "tar": "a tar archive, not an image: rename it to .tar",
}


def sniff_format(first_bytes: bytes) -> str:
    """Return the format of a file from its first SNIFF_BYTES bytes; "" if it is unknown.

    Those in IMAGE_FORMATS can be read as images; of the others `describe_format` says what the file is.
    """
    if not first_bytes:
        return "empty"
    for name, offset, magic in SIGNATURES:
        if first_bytes.startswith(magic, offset):
            return name
    if first_bytes[:4] == b"RIFF":
        return {b"WEBP": "WEBP", b"AVI ": "AVI"}.get(first_bytes[8:12], "")
    if first_bytes[4:8] == b"ftyp":
        return sniff_boxes(first_bytes)
    if first_bytes[4:8] in (b"moov", b"mdat", b"wide", b"skip"):
        return "MP4"
    if first_bytes[:2] == b"BM" and int.from_bytes(first_bytes[14:18], "little") in BMP_HEADERS:
        return "BMP"
    if re.match(rb"P[1-6f]\s+([\d#-])", first_bytes):
        return "PPM"
    if not any(first_bytes):
        return "zeros"
    return sniff_text(first_bytes)


def sniff_boxes(first_bytes: bytes) -> str:
    """Return the format of a file in boxes (ISO 14496-12) from its main brand, then from the compatible ones."""
    size = int.from_bytes(first_bytes[:4])
    main, others = first_bytes[8:12], first_bytes[16 : max(16, min(size, SNIFF_BYTES))]
    compatible = {others[start : start + 4] for start in range(0, len(others), 4)}
    candidates = ({main}, compatible) if main not in (b"mif1", b"msf1") else (compatible, {main})
    for brands in candidates:
        for name, own in BOX_BRANDS:
            if brands & own:
                return name
    return "MP4"


def sniff_text(first_bytes: bytes) -> str:
    """Return the kind of a text file; "" if the bytes are not text."""
    if first_bytes[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "text"  # UTF-16
    if re.search(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]", first_bytes):
        return ""
    try:
        codecs.getincrementaldecoder("utf-8-sig")().decode(first_bytes)  # the last character may be cut
    except UnicodeDecodeError:
        return ""
    start = first_bytes.removeprefix(codecs.BOM_UTF8).lstrip().lower()
    return next((name for name, pattern in TEXT_MARKS if re.match(pattern, start)), "text")


def describe_format(name: str, first_bytes: bytes) -> str:
    """Return one sentence on a file that is not an image that can be read: what it is, and what to do."""
    if name in DESCRIPTIONS:
        return f"the file is {DESCRIPTIONS[name]}"
    if name:
        return f"the file is in the format {name}, which is not supported: convert it to PNG"
    return f"not an image in a supported format: the file starts with the bytes {first_bytes[:8].hex(' ')}"


def is_image(first_bytes: bytes) -> bool:
    """Return whether a file that starts like this is an image, whatever its name."""
    return sniff_format(first_bytes) in IMAGE_FORMATS
