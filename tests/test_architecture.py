"""The layers hold: rooms import only from lower rooms, files are short, and --help loads no heavy library."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import openjepa

ROOT = Path(openjepa.__file__).parent
LEVELS = (
    {"core"},
    {"nn", "data"},
    {"masking"},
    {"modalities", "methods"},
    {"training"},
    {"interop", "recipes"},
    {"evaluation", "planning"},
    {"viz"},
    {"cli"},
)
FILES = sorted(ROOT.rglob("*.py"))
TOP = {"__init__.py", "__main__.py"}


def room(file: Path) -> str:
    return file.relative_to(ROOT).parts[0]


def level(name: str) -> int:
    return next(number for number, rooms in enumerate(LEVELS) if name in rooms)


def imports(file: Path) -> list[str]:
    """Return the package's modules and names that a file imports, as dotted paths; imports in functions count too."""
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "openjepa":
            found += [f"{node.module}.{alias.name}".split(".", 1)[1] for alias in node.names]
        if isinstance(node, ast.Import):
            found += [alias.name.split(".", 1)[1] for alias in node.names if alias.name.startswith("openjepa.")]
    return found


def imported_rooms(file: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(file)} - {"__version__"}


@pytest.mark.parametrize(
    "file", [file for file in FILES if file.parent != ROOT], ids=lambda f: str(f.relative_to(ROOT))
)
def test_imports_go_down_only(file):
    own = room(file)
    allowed = {name for rooms in LEVELS[: level(own)] for name in rooms} | {own}
    assert imported_rooms(file) <= allowed, f"{own} must not import {imported_rooms(file) - allowed}"


def test_there_are_no_circular_imports():
    module = {".".join(file.relative_to(ROOT).with_suffix("").parts): file for file in FILES}
    graph = {
        name: {target for each in imports(file) for target in (each, each.rpartition(".")[0]) if target in module}
        - {name}
        for name, file in module.items()
    }
    while leaves := {name for name, targets in graph.items() if not targets}:
        graph = {name: targets - leaves for name, targets in graph.items() if name not in leaves}
    assert not graph


def test_the_tree_has_few_folders_and_no_loose_files():
    assert {file.name for file in ROOT.glob("*.py")} == TOP
    folders = {file.parent.relative_to(ROOT).parts[0] for file in FILES if file.parent != ROOT}
    assert folders == set().union(*LEVELS) and len(folders) <= 13


def test_files_are_short():
    lengths = sorted(len(file.read_text().splitlines()) for file in FILES if file.read_text().strip())
    assert lengths[len(lengths) // 2] <= 130 and lengths[-1] <= 300


def test_methods_and_modalities_do_not_import_each_other():
    for room, other in (("methods", "modalities"), ("modalities", "methods")):
        for file in (ROOT / room).glob("*.py"):
            assert other not in imported_rooms(file)


def test_help_does_not_import_torch():
    code = (
        "import sys; from openjepa.cli.main import main; main(['--help']); "
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_nothing_from_a_file_is_executed_and_no_error_is_swallowed(file):
    tree = ast.parse(file.read_text())
    handlers = {  # draw_safely alone catches everything: what it runs is beside the results
        handler
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef) and function.name == "draw_safely" and file == ROOT / "core/console.py"
        for handler in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and node not in handlers:
            assert node.type is not None and getattr(node.type, "id", "") not in ("Exception", "BaseException")
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            assert name not in ("pickle.load", "pickle.loads", "yaml.load", "eval", "exec"), name
            if name == "torch.load":
                assert any(each.arg == "weights_only" and ast.unparse(each.value) == "True" for each in node.keywords)


TEXT_METHODS = {"read_text": 0, "write_text": 1, "open": 2}  # method -> position of its argument `encoding`


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_text_files_are_utf_8_whatever_the_locale(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in TEXT_METHODS:
            modes = [each.value for each in node.args if isinstance(each, ast.Constant) and isinstance(each.value, str)]
            reads_bytes = node.func.attr == "open" and any("b" in mode for mode in modes)
            other = ast.unparse(node.func.value) in ("os", "tarfile", "Pillow")  # not Path.open
            named = any(each.arg == "encoding" for each in node.keywords)
            given = named or len(node.args) > TEXT_METHODS[node.func.attr]
            assert reads_bytes or other or given, f"{file}:{node.lineno}: give encoding"


def test_every_module_has_a_docstring():
    for file in FILES:
        if file.read_text().strip():
            assert ast.get_docstring(ast.parse(file.read_text())), file
