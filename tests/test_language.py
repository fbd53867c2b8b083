"""The package speaks plain English with the field's terms: in names, messages, docstrings and comments."""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

import openjepa

ROOT = Path(openjepa.__file__).parent
FILES = sorted(file for file in ROOT.rglob("*.py"))
README = ROOT.parent / "README.md"
PHRASES = {  # pattern -> what to write
    r"asked for": "requested, target, or nothing",
    r"\b(is|are) none\b": "say what is wrong and the value seen",
    r"\bof which\b": "a relative clause with that or whose",
    r"\bwhat is there\b|\bwhat there is\b": "name the thing",
    r"\bso do we not\b": "we do not",
    r"\btold apart\b": "distinguished, split",
    r"\bwants? (a|an|one|two|more|no|the|whole|other|machines)\b": "requires, needs",
    r"\bMistake\b": "UserError",
    r"\bin a sentence\b": "drop it; every message is a sentence",
    r"\bTrouble\b|\bStopped\b": "RunError, Interrupted",
    r"\bthe average\b(?! of| over| precision)": "the EMA",
    r"\baveraged (encoder|target)": "EMA encoder, target encoder",
    r"\b(oneDNN's|torch's own|by plain) products\b|\bmatrix products?\b|\bits products\b": "matmuls",
    r"\blearnt\b": "learned",
    r"\bloud directions\b": "high-variance directions",
    r"\bwho is missing\b": "which rank is missing",
    r"\bverbs?\b": "command",
    r"\bgo(es)? on with\b": "resume, continue",
    r"\bbesides\b": "also",
    r"\bpasses? over\b": "skips",
}
SPELLING = {  # British -> American
    "colour": "color", "centre": "center", "neighbour": "neighbor", "normalis": "normaliz", "standardis": "standardiz",
    "labelled": "labeled", "licence": "license", "grey": "gray", "initialis": "initializ", "optimis": "optimiz",
    "regularis": "regulariz", "behaviour": "behavior", "penalis": "penaliz", "recognis": "recogniz",
    "maximis": "maximiz", "minimis": "minimiz", "orthogonalis": "orthogonaliz",
    "serialis": "serializ", "rasteris": "rasteriz",
}  # fmt: skip
NAMES = {  # identifiers that say nothing to a reader who is new
    "heeds", "asked", "told", "shown", "drawn", "kept", "alike", "apart", "seen", "wanted", "there", "mine", "ours",
    "theirs", "begun", "began", "following", "leading", "pace", "taken", "hyper", "draws", "place", "places", "found",
    "made", "gone", "said", "many", "few", "least", "most", "this", "plate", "plates", "picture_of", "numbers",
}  # fmt: skip
RANDOM_KEYS = {"uniform", "global_uniform", "normal_samples", "random_words"}  # their strings are part of the format
OLD_NAMES = {"migrations.py"}  # reads the names of older formats


def texts(file: Path) -> list[tuple[int, str]]:
    """Comments and strings of a file with their lines, without the keys of random numbers."""
    source = file.read_text()
    keys = {
        (part.lineno, part.col_offset)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in RANDOM_KEYS
        for argument in node.args
        for part in ast.walk(argument)
        if isinstance(part, ast.Constant | ast.JoinedStr)
    }
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return [
        (token.start[0], token.string)
        for token in tokens
        if token.type in (tokenize.COMMENT, tokenize.STRING) and token.start not in keys
    ]


def names(file: Path) -> list[tuple[int, str]]:
    """Every name that a file defines: functions, classes, parameters, variables, fields."""
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.append((node.lineno, node.name))
        if isinstance(node, ast.arg):
            found.append((node.lineno, node.arg))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.append((node.lineno, node.id))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.append((node.lineno, node.attr))
    return found


def complaints(text: str) -> list[str]:
    phrases = [f"{match[0]!r}: {better}" for each, better in PHRASES.items() if (match := re.search(each, text))]
    return phrases + [f"{each}…: {better}…" for each, better in SPELLING.items() if each in text.lower()]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_texts_are_plain_english(file):
    if file.name in OLD_NAMES:
        return
    lines = [f"{file}:{line}: {each}" for line, text in texts(file) for each in complaints(text)]
    assert not lines, "\n".join(lines)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_names_say_what_they_are(file):
    spelled = [each for each in SPELLING if each not in ("licence",)]
    bad = [
        f"{file}:{line}: {name}"
        for line, name in names(file)
        if name in NAMES or any(each in name.lower() for each in spelled)
    ]
    assert not bad, "\n".join(bad)


def test_the_readme_is_plain_english():
    lines = [
        f"README.md:{number}: {each}"
        for number, line in enumerate(README.read_text().splitlines(), 1)
        for each in complaints(line)
    ]
    assert not lines, "\n".join(lines)


def test_the_first_line_of_every_docstring_is_an_imperative_sentence():
    """A function's docstring begins with a verb such as Return, not with Returns or with a noun."""
    lines = []
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.FunctionDef) or not (doc := ast.get_docstring(node)):
                continue
            first = doc.split()[0]
            third_person = first.endswith("s") and not first.endswith("ss") and first not in ("Focus",)
            if third_person or first in (
                "The",
                "A",
                "An",
                "What",
                "Whether",
                "How",
                "Which",
                "Every",
                "All",
                "One",
                "Each",
            ):
                lines.append(f"{file}:{node.lineno}: {doc.splitlines()[0]}")
    assert not lines, "\n".join(lines)
