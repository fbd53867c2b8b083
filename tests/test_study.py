"""The study of small data: what its tables are made of."""

import json

import torch

from studies.small_data import effects
from studies.small_data.run import accuracies, packed_bits


def written(folder, arm, seed, right):
    bits = {name: packed_bits(each) for name, each in right.items()}
    file = folder / arm / f"seed{seed}" / "result.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"arm": arm, "seed": seed, **accuracies(right), "right": bits}))


def test_an_effect_is_the_mean_difference_over_common_seeds(tmp_path):
    right = torch.zeros(400, dtype=torch.bool)
    for seed, told in ((0, 200), (1, 240), (2, 400)):
        written(tmp_path, "reference", seed, {"kNN": right.index_fill(0, torch.arange(told), True)})
    for seed, told in ((0, 220), (1, 240), (7, 0)):
        written(tmp_path, "other", seed, {"kNN": right.index_fill(0, torch.arange(told), True)})
    found = effects.read(tmp_path)
    points, low, high = effects.effect(found["other"], found["reference"], "kNN")
    assert abs(points - 2.5) < 1e-4  # 5 of seed 0, none of seed 1
    assert 0 < low < 2.5 < high < 5
    assert abs(effects.spread({seed: found["reference"][seed] for seed in (0, 1)}, "kNN") - 10) < 1e-4


def test_results_without_answers_per_image_are_ignored(tmp_path):
    file = tmp_path / "old" / "seed0" / "result.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"arm": "old", "seed": 0, "kNN": 0.5}))
    assert effects.read(tmp_path) == {}
