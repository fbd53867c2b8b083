"""Whatever is in a config, a manifest, an index or the settings of a sampler: a sentence, or something sound; little memory."""

import copy
import json
import resource

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from openjepa.core.config import flatten
from openjepa.core.errors import UserError
from openjepa.core.rng import CounterRNG, epoch_order
from openjepa.data.archives import parse_address, read_index
from openjepa.data.loader import Steps
from openjepa.masking.config import Masking
from openjepa.training.checkpoint import DAMAGE_ERRORS, read_manifest
from openjepa.training.config import Pretrain, from_json, load_config, to_json
from tests import mutants
from tests.conftest import METHODS, MODALITIES, numbers

LIMITS = settings(  # the same examples every time; no smaller one is looked for, which can take minutes
    max_examples=300,
    deadline=5000,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
ODD = st.sampled_from(
    [0, -1, 10**30, -(10**30), 1e308, 5e-324, float("inf"), float("nan"), "", "nan", None, True, [], {}]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | ODD,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@pytest.fixture(autouse=True)
def little_memory():
    """No more than 2 GiB beyond what there is."""
    before = mutants.limited()
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def leaves(plain: object, path: tuple = ()) -> list[tuple]:
    """The way to every value of a JSON document, and to all that hold values."""
    inner = plain.items() if isinstance(plain, dict) else enumerate(plain) if isinstance(plain, list) else ()
    return [path] * bool(path) + [way for key, value in inner for way in leaves(value, (*path, key))]


@st.composite
def changed(draw, whole: dict) -> dict:
    """A document with one to three values replaced, removed or added."""
    plain = copy.deepcopy(whole)
    for _ in range(draw(st.integers(1, 3))):
        *way, last = draw(st.sampled_from(leaves(plain)))
        place = plain
        for key in way:
            place = place[key]
        act = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
        if act == "replace":
            place[last] = draw(JSON)
        elif act == "remove":
            del place[last]
        elif isinstance(place, dict):
            place[draw(st.text(max_size=5))] = draw(JSON)
        if not plain:
            break
    return plain


CONFIGS = [
    to_json(Pretrain(data=MODALITIES[modality], method=METHODS[method]))
    for modality, method in (("image", "averaged"), ("series", "mae"), ("rectangle", "vicreg"))
]


@LIMITS
@given(st.data())
def test_any_config_is_a_sentence_or_a_config(tmp_path, data):
    plain = data.draw(st.sampled_from(CONFIGS).flatmap(changed) | JSON)
    (tmp_path / "config.json").write_text(json.dumps(plain))
    try:
        read = load_config(tmp_path)
    except UserError as error:
        assert str(error)
        return
    assert isinstance(read, Pretrain)
    assert all(value == value for value in flatten(to_json(read)).values())  # nothing is not a number
    again = to_json(read)
    assert json.dumps(to_json(from_json(again))) == json.dumps(again)


STATE = {
    "format": 1,
    "step": 12,
    "save": "abc",
    "sha256": {"model.safetensors": "0" * 64, "optimizer.safetensors": "1" * 64},
}


@LIMITS
@given(st.data())
def test_any_manifest_is_damage_or_a_manifest(tmp_path, data):
    plain = data.draw(changed(STATE) | JSON)
    folder = tmp_path / "step-00000012"
    folder.mkdir(exist_ok=True)
    (folder / "state.json").write_text(json.dumps(plain))
    try:
        said = read_manifest(folder)
    except DAMAGE_ERRORS as error:
        assert str(error)
        return
    assert said.step == 12 and isinstance(said.save, str)
    assert all("/" not in name for name in said.sha256)


THIS = {"format": 1, "bytes": 5, "time": 7}
INDEX = {**THIS, "members": [[512, 10, 10, "a/b.jpg"], [2048, 7, 7, "c.jpg"]]}


@LIMITS
@given(st.data())
def test_any_index_is_none_or_a_list_of_members(tmp_path, data):
    (tmp_path / "index").write_text(json.dumps(data.draw(changed(INDEX) | JSON)))
    for member in read_index(tmp_path / "index", THIS) or []:
        assert member.first >= 0 and member.second >= 0 and member.name
        assert parse_address(f"some.tar/{member.first}+{member.second}/{member.name}") is not None


SHARE = st.floats(-0.5, 1.5) | st.sampled_from([0.0, 1.0, 1e-9, float("inf"), float("nan")])
POSITIVE = st.floats(-1, 20) | st.sampled_from([0.0, 1e-9, float("inf"), float("nan")])
SAMPLERS = st.sampled_from(["multiblock", "official", "quadrants", "block", "random"])
ANY = st.fixed_dictionaries(
    {},
    optional={
        "sampler": SAMPLERS,
        "targets": st.integers(-1, 9),
        "target_scale": st.tuples(SHARE, SHARE),
        "target_aspect": st.tuples(POSITIVE, POSITIVE),
        "context_scale": st.tuples(SHARE, SHARE),
        "context_fraction": SHARE,
        "min_keep": st.integers(-1, 300),
        "mask_ratio": SHARE,
        "target_fraction": SHARE,
        "masks_per_sample": st.integers(-1, 3),
    },
)


def between(low: float, high: float) -> st.SearchStrategy[tuple[float, ...]]:
    return st.tuples(st.floats(low, high), st.floats(low, high)).map(lambda pair: tuple(sorted(pair)))


SENSIBLE = st.fixed_dictionaries(
    {"sampler": SAMPLERS},
    optional={
        "targets": st.integers(1, 6),
        "target_scale": between(0.03, 0.6),
        "target_aspect": between(0.1, 10.0),
        "context_scale": between(0.2, 1.0),
        "context_fraction": st.floats(0.01, 1.0),
        "min_keep": st.integers(0, 12),
        "mask_ratio": st.floats(0.05, 0.95),
        "target_fraction": st.floats(0.05, 1.0),
        "masks_per_sample": st.integers(1, 3),
    },
)


@LIMITS
@given(ANY | SENSIBLE | SENSIBLE, st.tuples(st.integers(1, 24), st.integers(1, 24)), st.integers(0, 10**9))
def test_any_sampler_is_a_sentence_or_gives_sound_masks(options, grid, seed):
    try:
        masker = Masking(**options).build(grid)
    except UserError as error:
        assert str(error)
        return
    tokens = grid[0] * grid[1]
    for mask in masker(None, None, CounterRNG.of(seed, 3, numbers(*range(5))), 0.5):
        if options.get("sampler") != "official":  # whose shapes are bounds
            assert (mask.context.shape[1], *mask.target.shape[1:]) in set(masker.shapes())
        for row in range(5):
            shown = mask.context[row] if mask.context_valid is None else mask.context[row][mask.context_valid[row]]
            asked = mask.target[row] if mask.target_valid is None else mask.target[row][mask.target_valid[row]]
            shown, asked = shown.tolist(), asked.flatten().tolist()
            assert shown and asked and len(set(shown)) == len(shown)
            assert all(0 <= token < tokens for token in shown + asked)
            if options.get("sampler") != "official":  # which may let the last target into the context, as released
                assert not set(shown) & set(asked)


@LIMITS
@given(st.integers(0, 2**63), st.integers(0, 10**6), st.integers(1, 3000))
def test_an_epoch_is_an_order_of_all_samples(seed, epoch, count):
    assert sorted(epoch_order(seed, epoch, count).tolist()) == list(range(count))


@settings(LIMITS, max_examples=30)
@given(st.integers(1, 40), st.integers(0, 300), st.sampled_from([1, 2, 4]), st.integers(0, 2**32))
def test_ranks_share_every_step_without_overlap(batch, step, ranks, seed):
    data = MODALITIES["image"].synthetic(40, 0)
    shares = []
    for rank in range(ranks):
        try:
            steps = Steps(data, Masking().build((8, 8)), batch_size=batch, total=301, seed=seed, rank=rank, ranks=ranks)
        except UserError:
            assert batch % ranks
            return
        shares += steps[step].batch.index.tolist()
    whole = Steps(data, Masking().build((8, 8)), batch_size=batch, total=301, seed=seed)
    assert shares == whole[step].batch.index.tolist() and len(set(shares)) == batch
