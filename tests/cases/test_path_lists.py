"""Lists of paths are read as every system writes them; a line that names no file says why."""

import unicodedata
from pathlib import Path

import pytest

from openjepa.core.errors import UserError
from openjepa.data.listing import list_files
from openjepa.data.path_list import read_path_list
from openjepa.recipes.detect import detect_modality

LINES = "pictures/0.jpg\npictures/1.jpg\n"


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "pictures").mkdir()
    for name in ("0.jpg", "1.jpg", "Grüße é.jpg", "in the end .jpg ", "#1.jpg", "a,b.jpg", "one\u2028line.jpg"):
        (tmp_path / "lists" / "pictures" / name).write_bytes(b"picture")
    (tmp_path / "elsewhere.jpg").write_bytes(b"picture")
    return tmp_path / "lists"


def read(folder: Path, content: bytes) -> list[str]:
    """Return the paths in a list, relative to its folder."""
    (folder / "list.txt").write_bytes(content)
    return [Path(path).relative_to(folder).as_posix() for path in read_path_list(folder / "list.txt")]


@pytest.mark.parametrize(
    "content",
    [
        LINES.encode("utf-8-sig"),
        LINES.replace("\n", "\r\n").encode(),
        LINES.replace("\n", "\r\n").encode("utf-8-sig"),
        LINES.replace("\n", "\r").encode(),
        LINES.encode("utf-16"),
        LINES.replace("\n", "\r\n").encode("utf-16"),
        LINES.encode("utf-16-be"),
        LINES.encode("utf-16-le"),
        LINES.encode("utf-32"),
        LINES.replace("/", "\\").encode(),
        LINES.replace("pictures/", ".\\pictures\\").encode(),
        b'"pictures/0.jpg"\r\n"pictures\\1.jpg"\r\n',
        b"'pictures/0.jpg'\n'pictures/1.jpg'\n",
        b"\n\r\n  \npictures/0.jpg   \n\n\t pictures/1.jpg",
        b"# made by find\npictures/0.jpg\n#\npictures/1.jpg\n",
        "pictures/0.jpg\n\ufeffpictures/1.jpg\n".encode("utf-8-sig"),  # two lists, one after the other
    ],
    ids=lambda content: repr(content[:24]),
)
def test_lists_of_every_system_name_the_same_files(content, folder):
    assert read(folder, content) == ["pictures/0.jpg", "pictures/1.jpg"]


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("pictures/Grüße é.jpg".encode("cp1252"), "Grüße é.jpg"),
        (unicodedata.normalize("NFD", "pictures/Grüße é.jpg").encode(), "Grüße é.jpg"),
        (b"pictures/in the end .jpg \n", "in the end .jpg "),
        (b"pictures/#1.jpg", "#1.jpg"),
        (b"pictures/a,b.jpg\n", "a,b.jpg"),
        ("pictures/one\u2028line.jpg\n".encode(), "one\u2028line.jpg"),
    ],
)
def test_unusual_names_are_found(content, name, folder):
    assert read(folder, content) == [f"pictures/{name}"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("C:\\data\\0.jpg", "a path of Windows"),
        ("\\\\server\\share\\0.jpg", "a path of Windows"),
        ("pictures", "a folder: a list names files"),
        ("pictures/0.jpg,cat", "'pictures/0.jpg' is a file: a list has one path per line and nothing else"),
        ("pictures/0.jpg 3", "'pictures/0.jpg' is a file"),
        ("pictures/0.JPG", "the file's name is '0.jpg'"),
        ("https://example.org/0.jpg", "a web address"),
        ("pictures/9.jpg", "which is not a file below"),
        ("elsewhere.jpg", "relative to the folder of the list"),
        ("~nobody-has-this-name/0.jpg", "which is not a file"),
        ("x" * 5000, "which is not a file"),
    ],
)
def test_a_line_that_names_no_file_says_its_number_and_why(line, expected, folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    with pytest.raises(UserError) as error:
        read(folder, f"pictures/1.jpg\n{line}\n".encode())
    message = str(error.value)
    assert f"line 2 of {folder / 'list.txt'} is " in message and expected in message
    assert len(message) < 600 and "\n" not in message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "names no file: write one path per line"),
        (b"# nothing yet\n\n", "names no file"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "is not a text file"),
        (b"\xff\xfepicture", "is not a text in utf-16"),
    ],
)
def test_a_file_that_is_no_list_is_refused(content, expected, folder):
    with pytest.raises(UserError, match=expected):
        read(folder, content)


def test_names_are_relative_to_the_list_also_upwards(folder):
    (folder / "list.txt").write_bytes(b"..\\elsewhere.jpg\r\n")
    (path,) = read_path_list(folder / "list.txt")
    assert Path(path).samefile(folder.parent / "elsewhere.jpg")


def test_a_list_of_windows_gives_the_same_data_as_its_folder(folder, monkeypatch):
    for name in (folder / "pictures").iterdir():
        if not name.name[0].isdigit():
            name.unlink()
    (folder / "list.TXT").write_bytes(LINES.replace("/", "\\").replace("\n", "\r\n").encode("utf-16"))
    monkeypatch.chdir(folder)
    listed = list_files(("list.TXT",), frozenset({".jpg"}))
    assert listed == list_files(("pictures",), frozenset({".jpg"}))
    assert detect_modality(("list.TXT",)) == "image"
