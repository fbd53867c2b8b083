"""Names of files, classes and runs are shown as they are, and no table, picture or page costs a result."""

import csv
import json
import os
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from rich.text import Text

from openjepa.cli import predict as predicting
from openjepa.cli import search as searching
from openjepa.cli.main import main
from openjepa.cli.pretrain import pretrain
from openjepa.core import console as printing
from openjepa.core.console import console, draw_safely, info, warn
from openjepa.core.errors import Interrupted, UserError
from openjepa.core.markdown import markdown_name, markdown_table
from openjepa.core.names import printable, shorten
from openjepa.core.tables import framed_table, print_table
from openjepa.core.types import Score
from openjepa.evaluation.evaluator import Evidence
from openjepa.evaluation.labeled import Split
from openjepa.evaluation.measure import Measurement
from openjepa.evaluation.probing import ProbeResult
from openjepa.evaluation.scores import read_scores
from openjepa.evaluation.settings import LabeledData, ProbeSettings
from openjepa.viz import clusters as cluster_page
from openjepa.viz import scores as publishing
from openjepa.viz import text as texts
from openjepa.viz.canvas import CaptionedFigure, draw_tiles, save_figure, to_png
from openjepa.viz.curves import draw_panels, format_charts
from openjepa.viz.explorer.page import project_safely
from openjepa.viz.html import fill_in, format_section, to_svg, write_page
from openjepa.viz.inputs import ImageBatch
from openjepa.viz.map_page import Plane, interactive_map
from openjepa.viz.text import add_legend
from tests.cases.inputs import picture

FORMULAS = ("A$$AP", "cost_$5_or_$10", "x_$y^$", r"a$\frac$b", "$^$", "50%$", "_hidden")
MARKUP = ("a[/b]", "[red]", "[bold]x", "[/]", ":smile:", "[link=http://x]y", "{task.fields[x]}")
PAGES = ("<b>", "a&b", 'quo"te', "a|b", "`tick`", "@BODY@", "*star*", "</script>")
SCRIPTS = ("猫", "कुत्ता", "שלום", "über straße", "Café", "大 猫")
HOSTILE = {  # name -> how it is shown
    "two\nlines": r"two\nlines", "tab\there": r"tab\there", "\x1b[31mred": r"\x1b[31mred", "\x9b2J": r"\x9b2J",
    "txt\u202egpj": r"txt\u202egpj", "\ufeff000.jpg": r"\ufeff000.jpg", "bad\udcff.jpg": r"bad\xff.jpg",
    "bell\x07": r"bell\x07", "zero\u200bwidth": r"zero\u200bwidth",
}  # fmt: skip
PLAIN = (*FORMULAS, *MARKUP, *PAGES, *SCRIPTS, "क्‍ष", "L" * 200, "a  b", "👩‍🔬")


@pytest.mark.parametrize("name", PLAIN)
def test_a_name_that_only_shows_itself_stays_as_it_is(name):
    assert printable(name) == name


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_that_moves_hides_or_turns_text_is_escaped(name):
    assert printable(name) == HOSTILE[name]


def test_a_long_name_keeps_its_beginning_and_its_end():
    assert shorten("a" * 50 + "b" * 50, 11) == "aaaaa…bbbbb" and shorten("short", 11) == "short"


@pytest.fixture
def terminal(monkeypatch):
    """Pretend that a person looks at a terminal of 60 columns."""
    monkeypatch.setattr(console, "_force_terminal", True)
    monkeypatch.setattr(console, "_width", 60)
    monkeypatch.setattr(console, "_color_system", None)


def test_no_cell_title_or_message_is_markup_on_a_terminal(terminal, capsys):
    for name in (*FORMULAS, *MARKUP, *PAGES):
        print_table((name, "other"), [(name, "x")], title=name)
        info(f"told {name}")
        lines = capsys.readouterr().out.splitlines()
        assert sum(name in line for line in lines) == 4, (name, lines)


def test_a_long_path_is_complete_on_a_terminal(terminal, capsys):
    path = "photos/" + "deep/" * 30 + "end.jpg"
    print_table(("file", "class"), [(path, "cat")])
    shown = "".join(line.split("│")[1].strip() for line in capsys.readouterr().out.splitlines() if "│" in line)
    assert shown == path


def test_messages_do_not_obey_names(capsys):
    for name, shown in HOSTILE.items():
        if name not in ("two\nlines", "tab\there"):  # our own messages have lines and tabs
            warn(f"{name} is left out")
            assert capsys.readouterr().err == f"jepa: {shown} is left out\n"


def test_a_table_is_a_table_even_if_a_name_is_one_of_rich(capsys):
    assert isinstance(framed_table(["a"], [["[x]"]], "").columns[0]._cells[0], str)
    print_table(("name",), [(str(Text("[x]")),)])
    assert "[x]" in capsys.readouterr().out


# --- drawing -----------------------------------------------------------------------------------------------------


def draw_names(names) -> Figure:
    figure = Figure()
    axes = figure.add_subplot()
    axes.set_xticks(range(len(names)), names)
    axes.set_title(names[0])
    add_legend(axes, names, [axes.plot([0, number])[0] for number in range(len(names))])
    return figure


def texts_in(figure: Figure) -> list[str]:
    figure.canvas.draw()
    return [each.get_text() for each in figure.findobj(texts.Text)]


@pytest.mark.parametrize("name", [*FORMULAS, *MARKUP, *PAGES])
def test_a_figure_shows_names_as_they_are(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = draw_names([name, "plain"])
        assert to_png(figure).startswith(b"\x89PNG")
    assert texts_in(figure).count(name) >= 3  # axis, title, legend


def test_powers_of_ten_along_an_axis_stay_formulas():
    figure = Figure()
    figure.add_subplot().loglog([1, 1e6], [1, 1e6])
    to_png(figure)
    figure.canvas.draw()
    tick = next(each for each in figure.axes[0].get_xticklabels() if "10" in each.get_text())
    assert tick.get_parse_math()


def test_without_a_font_names_become_numbers_with_a_legend():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = draw_names(["猫", "dog", "कुत्ता", "大 猫"])
        captioned = CaptionedFigure("x", "X", "Two animals.", figure)
        to_png(figure)
    shown = texts_in(figure)
    assert shown.count("name 1") >= 3 and shown.count("name 2") >= 2 and shown.count("dog") >= 2
    assert not any("猫" in each for each in shown)
    assert captioned.words == "Two animals. Names: name 1 = 猫; name 2 = कुत्ता; name 3 = 大 猫."


def test_scripts_that_matplotlib_would_turn_round_become_numbers():
    figure = draw_names(["שלום"])
    assert CaptionedFigure("x", "", "", figure).legend == "name 1 = שלום"


def test_a_part_of_a_text_becomes_a_number_and_the_rest_stays():
    figure = Figure()
    figure.text(0, 0, "0.123 猫")
    assert texts.adapt_texts(figure, "class") == "class 1 = 猫" and texts_in(figure) == ["0.123 class 1"]


@pytest.fixture
def fonts():
    """Forget which fonts were found, before and after."""
    texts.font_with.cache_clear()
    yield
    texts.font_with.cache_clear()


def test_with_a_font_that_has_them_names_are_drawn(fonts, monkeypatch):
    base = texts.installed_fonts()[0]
    monkeypatch.setattr(texts, "installed_fonts", lambda: (base, ("Stub Sans CJK", "stub.ttf")))
    monkeypatch.setattr(texts, "characters_of", lambda name: {ord("猫")} if "CJK" in name else set(range(128)))
    figure = draw_names(["猫", "dog"])
    assert texts.adapt_texts(figure) == ""
    label = next(each for each in figure.axes[0].get_xticklabels() if each.get_text() == "猫")
    assert label.get_fontfamily() == ["DejaVu Sans", "Stub Sans CJK"]


def test_fonts_of_placeholders_do_not_count():
    assert texts.font_with("\U00012000") is None  # cuneiform


def test_tiles_and_their_captions_are_drawn_with_any_name(tmp_path):
    tile = np.zeros((8, 8, 3), np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in (*FORMULAS, *MARKUP, *SCRIPTS, *HOSTILE):
            figure = draw_tiles([[tile]], [name], [name])
            assert save_figure(CaptionedFigure("x", name, f"About {name}.", figure), tmp_path / "x.png").exists()


def test_the_charts_of_a_page_keep_the_names_for_the_fonts_of_its_reader():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        svg = to_svg(draw_names(["猫", "A$$AP"]))
    assert "猫" in svg and "A$$AP" in svg


def test_curves_of_runs_with_any_names_are_drawn():
    log = [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}]
    logs = [("_first$a$", log), ("A$$AP", log), ("[red]", log)]
    shown = texts_in(draw_panels(logs, {}))
    assert {"_first$a$", "A$$AP", "[red]"} <= set(shown)
    assert "A$$AP" in format_charts(logs, {})


# --- pages and Markdown ------------------------------------------------------------------------------------------


def test_a_page_shows_names_and_does_not_run_them(tmp_path):
    page = write_page(
        "@BODY@ <i>", format_section('"><script>', "a\u202eb", "@TITLE@"), tmp_path / "x.html"
    ).read_text()
    assert "<title>@BODY@ &lt;i&gt;</title>" in page and 'id="&quot;&gt;&lt;script&gt;"' in page
    assert "@TITLE@" in page and r"a\u202eb" in page and "\u202e" not in page


def test_values_of_a_template_are_not_templates():
    assert fill_in("@A@ @B@ @C@", {"A": "@B@", "B": "2"}) == "@B@ 2 @C@"


def test_a_map_shows_names_and_does_not_run_them():
    pytest.importorskip("plotly", reason="plotly is not installed: pip install 'openjepa[show]'")

    class Drawn:
        @staticmethod
        def picture(_):
            return np.zeros((8, 8, 3), np.uint8)

    names, folders = ("a&b.jpg", "</script><i>.jpg"), ("A$$AP", "<b>")
    images = ImageBatch(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), names, folders, Drawn(), 2)
    page = interactive_map(Plane(np.zeros((2, 2), np.float32), images, None))
    assert ("a&b.jpg" in page or r"a\u0026b.jpg" in page) and "a&amp;b.jpg" not in page
    assert "</script><i>" not in page and "A$$AP" in page


def test_a_map_in_the_explorer_that_fails_says_why(monkeypatch):
    monkeypatch.setattr("openjepa.viz.explorer.page.project_features", fail)
    assert project_safely(np.zeros((3, 2), np.float32), 0) == "it could not be drawn: ValueError (no formula)"


def test_markdown_shows_names_as_they_are():
    assert markdown_name("plain name_x (1)") == "plain name_x (1)" and markdown_name("A$$AP") == "`A$$AP`"
    assert markdown_name("`a`") == "`` `a` ``" and markdown_name("_x_") == "`_x_`" and markdown_name("猫") == "猫"
    table = markdown_table(["class"], [["a|b"], ["two\nlines"], ["<b>"]])
    assert table == "| class |\n| --- |\n| `a\\|b` |\n| `two\\nlines` |\n| `<b>` |"


# --- results first -----------------------------------------------------------------------------------------------


class Labeled:
    """Labeled data with these classes."""

    fingerprint = "x"

    def __init__(self, classes):
        self.classes = classes

    def __len__(self):
        return 2 * len(self.classes)


def measured(classes) -> Measurement:
    truth = torch.arange(len(classes)).repeat(2)
    score = Score("data", "this encoder", "logistic", 50.0, 40.0, 60.0)
    split = Split(Labeled(classes), Labeled(classes), "a random fifth, held out")
    free = {"this encoder": {"rankme": 2.0}}
    return Measurement(
        [ProbeResult(score, Evidence(truth.roll(1), truth))], free, {"images": []}, {}, split, "images", (8, 8)
    )


def publish(out: Path, classes=(*FORMULAS, *MARKUP, *PAGES, *SCRIPTS, *HOSTILE)) -> str:
    publishing.publish_scores(measured(classes), ProbeSettings(data=LabeledData(root=("photos",))), out)
    assert len(read_scores(out / "photos.json")["scores"]) == 1
    return (out / "photos.md").read_text(encoding="utf-8")


def test_scores_of_classes_with_any_names_are_written_printed_and_drawn(tmp_path, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text = publish(tmp_path)
    assert all(name.replace("|", "\\|") in text for name in (*FORMULAS, *MARKUP, *PAGES, *SCRIPTS, *HOSTILE.values()))
    assert (tmp_path / "photos.png").stat().st_size > 1000
    assert "In the figure: class 1 = 猫; class 2 = कुत्ता" in publish(tmp_path / "few", SCRIPTS)
    said = capsys.readouterr()
    assert "this encoder\t50.0 (40.0–60.0)" in said.out and not said.err


def fail(*_, **__):
    raise ValueError("no formula\nin this text")


def test_a_picture_that_fails_costs_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(publishing, "write_png", fail)
    text = publish(tmp_path)
    said = capsys.readouterr()
    assert said.err == "jepa: the confusion matrix could not be drawn: ValueError (no formula)\n"
    assert "![confusion]" not in text and "| class |" in text and "written" in said.out


def test_a_table_that_fails_costs_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("openjepa.core.tables.print_cells", fail)
    publish(tmp_path)
    assert capsys.readouterr().err.count("could not be drawn: ValueError") == 2


def test_scores_are_on_disk_before_anything_is_drawn_or_printed(tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def stop(*_):
        raise Killed

    for name in ("draw_confusion", "print_scores"):
        out = tmp_path / name
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(publishing, name, stop)
            publish(out)
        assert read_scores(out / "photos.json")["scores"] and "50.0" in (out / "photos.md").read_text(encoding="utf-8")


def test_stopping_is_not_a_failed_picture(capsys):
    for stop in (KeyboardInterrupt, lambda: Interrupted(15)):

        def draw(stop=stop):
            raise stop()

        with pytest.raises((KeyboardInterrupt, Interrupted)):
            draw_safely("the figure", draw)
    assert draw_safely("the figure", lambda: 3) == 3

    def refuse():
        raise UserError("a map needs at least 10 images")

    assert draw_safely("the map", refuse) is None
    assert capsys.readouterr().err == "jepa: the map could not be drawn: a map needs at least 10 images\n"


def test_predictions_are_written_before_they_are_printed(tmp_path, monkeypatch):
    names = (*MARKUP, *FORMULAS, *SCRIPTS, "bad\udcff.jpg", "two\nlines")
    predictions = [predicting.Prediction(f"photos/{name}", (name, "b", "c"), (0.5, 0.3, 0.2)) for name in names]
    file = predicting.write_predictions(predictions, tmp_path / "p.csv")
    with file.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
        assert [row[0] for row in csv.reader(stream)][1:] == [each.file for each in predictions]


def test_predictions_in_a_pipe_have_a_full_row_each(capsys):
    names = [*MARKUP, *FORMULAS, *SCRIPTS, "deep/" * 60 + "x.jpg", *(f"{number}.jpg" for number in range(60))]
    predicting.print_predictions([predicting.Prediction(each, ("cat", "dog"), (0.6, 0.4)) for each in names], None)
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["file\tclass\tprobability %\tnext best", *(f"{name}\tcat\t60\tdog 40" for name in names)]


@pytest.fixture
def index(tmp_path) -> Path:
    """An index of pictures whose files and folders have difficult names, of some in several copies."""
    names = [*FORMULAS, "a[", "[red]", "[bold]x", ":smile:", "<b>", "猫", "two\nlines", "bad\udcff", "\x1b[31m"]
    files = []
    for number, name in enumerate(names):
        folder = tmp_path / "pictures" / name
        folder.mkdir(parents=True)
        for copy in range(2):
            picture(number).save(file := folder / f"b]{copy}$.jpg")
            files.append((str(file), name))
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", np.repeat(rng.normal(size=(len(names), 8)), 2, 0).astype(np.float32))
    with (tmp_path / "x.npy.csv").open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream:
        csv.writer(stream).writerows([("file", "class"), *files])
    return tmp_path / "x.npy"


def files_of(index: Path) -> list[str]:
    with index.with_name("x.npy.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
        return [row[0] for row in csv.reader(stream)][1:]


def test_search_shows_any_name(index, capsys):
    for row, file in list(enumerate(files_of(index)))[17:18]:
        assert main(["search", str(index), f"row:{row}", "--count", "40"]) == 0
        said = capsys.readouterr()
        rows = [line.split("\t") for line in said.out.splitlines() if line.count("\t") == 4][1:]
        assert {each[4] for each in rows} == {printable(each) for each in files_of(index) if each != file}
        assert "Traceback" not in said.err and "could not be drawn" not in said.err
    page = index.with_name("x-search.html").read_text(encoding="utf-8")
    assert index.with_name("x-search.png").exists() and "\\u003cb>" in page and "\x1b" not in page


def test_clusters_show_any_name(index, capsys):
    assert main(["cluster", str(index), "--clusters", "3"]) == 0
    said = capsys.readouterr()
    with index.with_name("x-clusters.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
        assert [row[0] for row in csv.reader(stream)][1:] == files_of(index)
    page = index.with_name("x-clusters.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;" in page and "A$$AP" in page and "猫" in page and "\x1b" not in page and not said.err


def test_duplicates_show_any_name(index, capsys):
    assert main(["duplicates", str(index), "--threshold", "0.99"]) == 0
    said = capsys.readouterr()
    pairs = {tuple(line.split("\t")) for line in said.out.splitlines() if line.startswith("2\t")}
    files = [printable(each) for each in files_of(index)]
    assert pairs == {("2", *files[row : row + 2]) for row in range(0, len(files), 2)} and not said.err


def test_a_page_that_fails_does_not_cost_the_clusters(index, capsys, monkeypatch):
    monkeypatch.setattr(cluster_page, "format_cluster", fail)
    assert main(["cluster", str(index), "--clusters", "2"]) == 0
    assert index.with_name("x-clusters.csv").exists()
    assert "the page" in (said := capsys.readouterr().err) and "could not be drawn: ValueError" in said


def test_a_sheet_that_fails_does_not_cost_the_page(index, monkeypatch, capsys):
    monkeypatch.setattr(searching, "contact_sheet", fail)
    assert main(["search", str(index), "row:0"]) == 0
    assert "the sheet could not be drawn" in capsys.readouterr().err and index.with_name("x-search.html").exists()


def test_figures_and_report_of_a_run_with_difficult_names(tiny, photos, tmp_path, capsys, curves):
    run = pretrain(replace(tiny, out=tmp_path / 'r$u$n [b] "><i>', steps=4))
    pictures = tmp_path / "p"
    for number, file in enumerate(sorted(photos.rglob("*.png"))[:12]):
        folder = pictures / ("A$$AP", "[red]", "猫", os.fsdecode(b"bad\xff"))[number % 4]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder / f"{number}$.png")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Glyph")
        assert main(["show", "features", str(run), str(pictures)]) == 0
        assert main(["report", str(run), "--no-pictures"]) == 0
    said = capsys.readouterr()
    assert "= 猫" in said.out and not said.err
    page = (run / "report.html").read_text(encoding="utf-8")
    assert '"><i>' not in page and "&quot;&gt;&lt;i&gt;" in page
    assert (run / "figures" / "features.png").exists()


def test_streams_are_looked_up_when_they_are_written_to(capsys):
    info("one")
    assert capsys.readouterr().out == "one\n" and printing.STREAMS["stdout"].failed is False


def test_a_score_file_holds_names_that_are_not_utf_8(tmp_path):
    from openjepa.evaluation.scores import write_scores

    score = Score("bad\udcff", "猫", "knn", 1.0)
    file = write_scores(tmp_path / "x.json", [score], {})
    assert read_scores(file)["scores"] == [score] and json.loads(file.read_bytes().decode("utf-8"))
