"""Any config, manifest, index or sampler setting is either valid or a clear error, within little memory."""

import copy
import dataclasses
import json
import resource

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from openjepa.core.config import flatten
from openjepa.core.errors import UserError
from openjepa.core.registry import find
from openjepa.core.rng import CounterRNG, epoch_order
from openjepa.core.types import Layout
from openjepa.data.archives import parse_address, read_index
from openjepa.data.loader import Steps
from openjepa.masking.multiblock import MultiBlock
from openjepa.training.checkpoint import DAMAGE_ERRORS, read_manifest
from openjepa.training.config import Pretrain, from_json, load_config, to_json
from tests import mutants
from tests.conftest import METHODS, MODALITIES, numbers

LIMITS = settings(  # the same examples every time, without shrinking, which can take minutes
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
def memory_limit():
    """Allow at most 2 GiB more than this process uses already."""
    before = mutants.limit_memory()
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def leaves(plain: object, path: tuple = ()) -> list[tuple]:
    """Return the path of every value and every container in a JSON document."""
    inner = plain.items() if isinstance(plain, dict) else enumerate(plain) if isinstance(plain, list) else ()
    return [path] * bool(path) + [leaf for key, value in inner for leaf in leaves(value, (*path, key))]


@st.composite
def changed(draw, whole: dict) -> dict:
    """Replace, remove or add one to three values of a document."""
    plain = copy.deepcopy(whole)
    for _ in range(draw(st.integers(1, 3))):
        *path, last = draw(st.sampled_from(leaves(plain)))
        parent = plain
        for key in path:
            parent = parent[key]
        act = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
        if act == "replace":
            parent[last] = draw(JSON)
        elif act == "remove":
            del parent[last]
        elif isinstance(parent, dict):
            parent[draw(st.text(max_size=5))] = draw(JSON)
        if not plain:
            break
    return plain


CONFIGS = [
    to_json(Pretrain(data=MODALITIES[modality], method=METHODS[method]))
    for modality, method in (("image", "averaged"), ("series", "mae"), ("rectangle", "vicreg"))
]


@LIMITS
@given(st.data())
def test_any_config_is_a_user_error_or_a_config(tmp_path, data):
    plain = data.draw(st.sampled_from(CONFIGS).flatmap(changed) | JSON)
    (tmp_path / "config.json").write_text(json.dumps(plain))
    try:
        config = load_config(tmp_path)
    except UserError as error:
        assert str(error)
        return
    assert isinstance(config, Pretrain)
    assert all(value == value for value in flatten(to_json(config)).values())  # no NaN
    again = to_json(config)
    assert json.dumps(to_json(from_json(again))) == json.dumps(again)


STATE = {
    "format": 1,
    "step": 12,
    "save": "abc",
    "sha256": {"model.safetensors": "0" * 64, "optimizer.safetensors": "1" * 64},
}


@LIMITS
@given(st.data())
def test_any_manifest_is_damaged_or_valid(tmp_path, data):
    plain = data.draw(changed(STATE) | JSON)
    folder = tmp_path / "step-00000012"
    folder.mkdir(exist_ok=True)
    (folder / "state.json").write_text(json.dumps(plain))
    try:
        manifest = read_manifest(folder)
    except DAMAGE_ERRORS as error:
        assert str(error)
        return
    assert manifest.step == 12 and isinstance(manifest.save, str)
    assert all("/" not in name for name in manifest.sha256)


HEADER = {"format": 1, "bytes": 5, "time": 7}
INDEX = {**HEADER, "members": [[512, 10, 10, "a/b.jpg"], [2048, 7, 7, "c.jpg"]]}


@LIMITS
@given(st.data())
def test_any_index_is_rejected_or_a_list_of_members(tmp_path, data):
    (tmp_path / "index").write_text(json.dumps(data.draw(changed(INDEX) | JSON)))
    for member in read_index(tmp_path / "index", HEADER) or []:
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
def test_any_masking_is_a_user_error_or_gives_valid_masks(options, grid, seed):
    try:
        chosen = find("masks", options.get("sampler", "multiblock"))
        fields = {each.name for each in dataclasses.fields(chosen)}
        masker, layout = chosen(**{k: v for k, v in options.items() if k in fields}), Layout.grid(*grid)
        masker.shapes(layout)
    except UserError as error:
        assert str(error)
        return
    tokens = grid[0] * grid[1]
    for mask in masker(layout, None, None, CounterRNG.of(seed, 3, numbers(*range(5))), 0.5):
        if options.get("sampler") != "official":  # its shapes are upper bounds
            assert (mask.context.shape[1], *mask.target.shape[1:]) in set(masker.shapes(layout))
        for row in range(5):
            context = mask.context[row] if mask.context_valid is None else mask.context[row][mask.context_valid[row]]
            target = mask.target[row] if mask.target_valid is None else mask.target[row][mask.target_valid[row]]
            context, target = context.tolist(), target.flatten().tolist()
            assert context and target and len(set(context)) == len(context)
            assert all(0 <= token < tokens for token in context + target)
            if options.get("sampler") != "official":  # its contexts may overlap the last target
                assert not set(context) & set(target)


@LIMITS
@given(st.integers(0, 2**63), st.integers(0, 10**6), st.integers(1, 3000))
def test_an_epoch_is_a_permutation_of_all_samples(seed, epoch, count):
    assert sorted(epoch_order(seed, epoch, count).tolist()) == list(range(count))


@settings(LIMITS, max_examples=30)
@given(st.integers(1, 40), st.integers(0, 300), st.sampled_from([1, 2, 4]), st.integers(0, 2**32))
def test_ranks_share_every_step_without_overlap(batch, step, ranks, seed):
    data = MODALITIES["image"].synthetic(40, 0)
    shares = []
    for rank in range(ranks):
        try:
            steps = Steps(
                data,
                MultiBlock(),
                Layout.grid(8, 8),
                batch_size=batch,
                total_steps=301,
                seed=seed,
                rank=rank,
                world_size=ranks,
            )
        except UserError:
            assert batch % ranks
            return
        shares += steps[step].batch.index.tolist()
    whole = Steps(data, MultiBlock(), Layout.grid(8, 8), batch_size=batch, total_steps=301, seed=seed)
    assert shares == whole[step].batch.index.tolist() and len(set(shares)) == batch
