"""jepa plan, diagnose, show plan and show value on a tiny trained system: files, tables, JSON, errors."""

import json

import pytest

from openjepa.cli.main import main
from openjepa.planning import diagnosis, probes, success, value_quality
from openjepa.planning.episodes import run_episodes
from openjepa.training.config import load_config
from openjepa.viz import plans

BASELINES = ["nothing", "random", "straight line", "shortest way"]


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Measure on few samples, and end episodes after a few steps."""
    for name, value in {"WALKS": 20, "TESTS": 4, "PUSHES": 16}.items():
        monkeypatch.setattr(diagnosis, name, value)
    monkeypatch.setattr(probes, "STEPS", 5)
    monkeypatch.setattr(value_quality, "ROOMS", 2)
    monkeypatch.setattr(value_quality, "STATES", 5)
    for module in (success, plans):
        monkeypatch.setattr(module, "run_episodes", lambda env, act, max_steps=5: run_episodes(env, act, 5))


def rows_of(file) -> dict[str, dict]:
    """Read a file as strictly as other programs do: they know no NaN."""
    content = json.loads(file.read_text(), parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    return {row["name"]: row for row in content["rows"]}


QUICK = ["--episodes", "2", "--samples", "8", "--iterations", "1"]


def test_plan_writes_a_row_for_each_baseline_and_the_agent(rooms_run, tmp_path, capsys):
    assert main(["plan", str(rooms_run), *QUICK, "--out", str(tmp_path / "plan.json")]) == 0
    rows = rows_of(tmp_path / "plan.json")
    assert list(rows) == [*BASELINES, "mode 2, mppi"]
    assert all(row["episodes"] == 2 and row["low"] <= row["success"] <= row["high"] + 1e-9 for row in rows.values())
    assert rows["mode 2, mppi"]["imagined_steps"] > 0 and rows["mode 2, mppi"]["ms_per_step"] > 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in rows) and str(tmp_path / "plan.json") in printed


def test_plan_compares_all_actors(rooms_run, tmp_path):
    assert main(["plan", str(rooms_run), *QUICK, "--mode", "1", "--compare", "--out", str(tmp_path / "all.json")]) == 0
    names = list(rows_of(tmp_path / "all.json"))
    assert names[4:] == [
        "mode 2, flat cost", "greedy", "mode 1", "adaptive", "mode 2, mppi", "exact dynamics, critic",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["--zone"], ["mode 2, mppi, zone ignored", "mode 2, mppi, zone avoided"]),
        (["--view", "5"], ["mode 2, mppi, with memory of walls"]),
        (["--view", "5", "--no-memory"], ["mode 2, mppi, without memory of walls"]),
        (["--planner", "cem", "--no-critic"], ["mode 2, cem"]),
        (["--goal", "28", "4"], ["mode 2, mppi"]),
    ],
)
def test_plan_names_what_is_added_to_a_task(words, names, rooms_run, tmp_path):
    assert main(["plan", str(rooms_run), *QUICK, *words, "--out", str(tmp_path / "plan.json")]) == 0
    rows = rows_of(tmp_path / "plan.json")
    assert list(rows)[4:] == names
    assert all((rows[name]["inside"] is not None) == ("zone" in name) for name in names)


def test_the_same_seed_gives_the_same_rows_and_another_one_others(rooms_run, tmp_path):
    contents = []
    for seed in ("1", "1", "2"):
        words = ["--episodes", "6", *QUICK[2:], "--seed", seed, "--out", str(tmp_path / "plan.json")]
        assert main(["plan", str(rooms_run), *words]) == 0
        rows = rows_of(tmp_path / "plan.json").values()
        contents.append([{**row, "ms_per_step": None} for row in rows])
    assert str(contents[0]) == str(contents[1]) != str(contents[2])


def test_diagnose_measures_all_modules_and_says_which_one_fails(rooms_run, tmp_path, capsys):
    assert main(["diagnose", str(rooms_run), "--episodes", "2", "--out", str(tmp_path / "diagnosis.json")]) == 0
    content = json.loads((tmp_path / "diagnosis.json").read_text())
    assert content["world"]["linear"].keys() == {"position", "wall", "door"}
    assert content["world"]["imagined"].keys() == {"1", "8", "16"} and content["world"]["summary"] > 0
    assert -1 <= content["values"]["rank_correlation"] <= 1
    names = ["exact dynamics, critic", "learned dynamics, exact values", "exact dynamics, exact values"]
    assert [row["name"] for row in content["rows"]] == names
    printed = capsys.readouterr().out
    assert "porosity" in printed and "dynamics   fail with exact values" in printed


def test_a_world_without_a_critic_is_diagnosed_too(rooms_run, tmp_path):
    first = rooms_run / "stage-1"
    assert main(["diagnose", str(first), "--episodes", "2", "--out", str(tmp_path / "diagnosis.json")]) == 0
    content = json.loads((tmp_path / "diagnosis.json").read_text())
    assert content["values"] is None and content["world"]["summary"] is None and len(content["rows"]) == 2


def test_show_plan_draws_candidates_imagined_frames_and_episodes(rooms_run, tmp_path, capsys):
    assert main(["show", "plan", str(rooms_run), "--count", "2", "--out", str(tmp_path / "plan.png")]) == 0
    files = {file.name: file.stat().st_size for file in tmp_path.iterdir() if file.suffix}
    names = {"plan.png", "plan-imagined.png", "plan-episodes.png", "plan-episodes.gif", "plan.html"}
    assert files.keys() == names and min(files.values()) > 1000
    page = (tmp_path / "plan.html").read_text()
    assert "Candidates and chosen plans" in page and "Imagined and real" in page and "Episodes of mode 2" in page


def test_show_value_draws_three_maps_for_each_task(rooms_run, tmp_path):
    assert main(["show", "value", str(rooms_run), "--count", "1", "--out", str(tmp_path / "value.png")]) == 0
    assert (tmp_path / "value.png").stat().st_size > 5000
    assert "the critic must go around them" in (tmp_path / "value.html").read_text()


def test_the_report_of_an_agent_shows_values_plans_and_episodes_and_what_to_type_next(rooms_run, tmp_path):
    assert main(["report", str(rooms_run), "--out", str(tmp_path / "report.html")]) == 0
    page = (tmp_path / "report.html").read_text()
    assert all(title in page for title in ("the critic must go around them", "Candidates and chosen plans", "Episodes"))
    assert f"jepa plan {rooms_run}/stage-4" in page and "jepa probe" not in page


@pytest.mark.parametrize(("stage", "command"), [("stage-1", "diagnose"), ("stage-3", "plan")])
def test_a_stage_says_what_can_be_done_with_it(rooms_run, stage, command):
    settings = load_config(rooms_run / stage)
    assert settings.method.next_commands("RUN", settings.data)[0][0] == f"jepa {command} RUN"


def test_figures_are_written_beside_the_run_if_no_path_is_given(rooms_run):
    assert main(["show", "value", str(rooms_run), "--count", "1", "--no-page"]) == 0
    assert (rooms_run / "figures" / "value.png").is_file()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["plan", "{}/stage-1"],
            "this run has no critic: train all stages, jepa pretrain world-rooms, or give --no-cri",
        ),
        (["plan", "{}/stage-3", "--mode", "1"], "this run has no policy: train all stages"),
        (["show", "value", "{}/stage-2"], "stage-2 has no critic: train all stages, jepa pretrain world-rooms"),
        (["plan", "{}", "--episodes", "0"], "--episodes must be >= 1, got 0"),
        (["plan", "{}", "--zone", "--mode", "1"], "--zone needs --mode 2: the policy was trained without zones"),
        (["plan", "{}", "--zone", "--view", "8"], "--zone and --view cannot be measured together"),
        (["plan", "{}", "--zone", "--compare"], "leave --zone and --view out"),
        (["plan", "{}", "--view", "-1"], "--view must be >= 0 (0 = all walls), got -1"),
        (["demo", "rooms", "--budget", "5m", "--out", "{}/demo"], "no --budget: give --epochs 0.5"),
        (["plan", "{}", "--replan", "9"], "--replan must be between 1 and --horizon 8, got 9"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(words, sentence, rooms_run, capsys):
    words = [word.replace("{}", str(rooms_run)) for word in words]
    more = QUICK if words[0] == "plan" and "--episodes" not in words else []
    assert main([*words, *more]) == 1
    assert sentence in capsys.readouterr().err


def test_a_run_of_images_is_no_world_model(tiny, capsys):
    from openjepa.cli.pretrain import pretrain

    pretrain(tiny)
    assert main(["plan", str(tiny.out)]) == 1
    assert "is no world model: train one, jepa pretrain world-rooms --out runs/rooms" in capsys.readouterr().err
