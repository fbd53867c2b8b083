"""Results equal those stored before the package was reorganized: losses, features, scores, hits, figures, exports.

Floats agree within 1e-6 on a machine like the one that stored them, elsewhere to what rounding does in twenty steps:
losses 1e-3 in fp32 and 2e-2 in bf16. Integers and names agree everywhere. tests/golden/capture.py compares bits.
"""

import json
from pathlib import Path

import pytest

from openjepa.nn.cpu_kernels import HAS_ONEDNN_BF16
from tests.conftest import slow
from tests.golden.capture import RESULTS
from tests.golden.training import QUICK as QUICK_CASES
from tests.golden.training import TWO, by_one_process, cases, first_weights, recipes, trained_together
from tests.golden.values import Tolerance, differences, machine
from tests.golden.verbs import QUICK, SLOW, small_run

STORED = json.loads(RESULTS.read_text())
SAME = STORED["machine"] == machine()
CLOSE = Tolerance(1e-6, 1e-6)
LOOSE = CLOSE if SAME else Tolerance(1e-3, 1e-3)
LOOSE_BF16 = CLOSE if SAME else Tolerance(2e-2, 2e-2)
LOOSE_SCORES = CLOSE if SAME else Tolerance(0.0, 0.07)  # two of 32 test pictures
TOLERANCES = {"probes of features": LOOSE_SCORES, "probes that train": LOOSE_SCORES}
ELSEWHERE = {"map", "figures"}  # places on a map are another layout altogether after a rounding


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A place for what is trained and asked."""
    return tmp_path_factory.mktemp("golden")


def agree(stored, found, tolerance: Tolerance) -> None:
    wrong = [str(each) for each in differences(stored, json.loads(json.dumps(found)), tolerance)]
    assert not wrong, "\n".join(wrong[:20])


def without_map(section: str, value):
    """On another machine the layout of a map is not compared."""
    if SAME or section not in ELSEWHERE:
        return value
    return {name: each for name, each in value.items() if not name.startswith("map")}


def trains(folder: Path, name: str) -> None:
    every = by_one_process(folder, bool(HAS_ONEDNN_BF16), (name,))
    assert every
    for result, compute in every.items():
        if "fp32, whole batches" in result or name not in QUICK_CASES:
            agree(STORED["training"][result], compute(), LOOSE_BF16 if "bf16" in result else LOOSE)


def named(prefix: str) -> list[str]:
    """Cases that are stored, by the name before their variant."""
    return sorted({name.split(";")[0] for name in STORED["training"] if name.startswith(prefix)})


def test_all_that_is_trained_here_is_stored(folder):
    every = set(by_one_process(folder, bool(HAS_ONEDNN_BF16))) - set(STORED["training"])
    assert not every and set(cases(folder)) == {name.split(";")[0] for name in STORED["training"]}


def test_recipes_at_full_size_are_what_they_were():
    agree(STORED["recipes at full size"]["all"], recipes(), CLOSE)


def test_first_weights_are_those_of_their_seeds(folder):
    agree(STORED["first weights"]["all"], first_weights(folder), CLOSE)


@pytest.mark.parametrize(
    "name", [each if each in QUICK_CASES else pytest.param(each, marks=slow) for each in named("")]
)
def test_losses_and_weights_after_twenty_steps_are_what_they_were(folder, name):
    trains(folder, name)


@pytest.mark.parametrize("name", QUICK_CASES)
@slow
def test_losses_and_weights_in_bf16_and_in_parts_are_what_they_were(folder, name):
    for result, compute in by_one_process(folder, bool(HAS_ONEDNN_BF16), (name,)).items():
        if "fp32, whole batches" not in result:
            agree(STORED["training"][result], compute(), LOOSE_BF16 if "bf16" in result else LOOSE)


@slow
def test_losses_of_two_processes_are_what_they_were(folder):
    wanted = {name: each for name, each in TWO.items() if HAS_ONEDNN_BF16 or each.precision == "fp32"}
    found = trained_together(folder, wanted)
    stored = STORED["training by two processes"]["all"]
    agree({name: stored[name] for name in found}, found, LOOSE if SAME else LOOSE_BF16)


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(each, marks=slow) for each in SLOW)])
def test_what_is_made_of_a_small_run_is_what_it_was(folder, name):
    found = (QUICK | SLOW)[name](small_run(folder))
    stored = STORED["small run"][name]
    agree(without_map(name, stored), without_map(name, found), TOLERANCES.get(name, LOOSE))
