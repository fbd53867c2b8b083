"""Rendered scenes: reproducible, labelled by CLEVR's rules, depth and masks true to the geometry."""

import bisect

import pytest
import torch

from openjepa.core.rng import CounterRNG
from openjepa.data.synthetic.scenes import (
    COUNTS,
    FAR,
    TASKS,
    cube,
    cylinder,
    labels,
    place_camera,
    place_objects,
    render,
    sphere,
)

SCENES = render(64, (48, 64), seed=1)


def test_a_scene_is_a_function_of_seed_and_number():
    alone = render(3, (48, 64), seed=1, first=20)
    assert all(torch.equal(a, b[20:23]) for a, b in zip(alone, SCENES, strict=True))
    assert not torch.equal(render(1, (48, 64), seed=2).image, SCENES.image[:1])


def test_every_class_of_every_task_occurs():
    draws = CounterRNG.of(0, 0, torch.arange(4000).numpy())
    found = labels(place_objects(draws), place_camera(draws))
    for label, classes in zip(found, TASKS.values(), strict=True):
        assert set(label.tolist()) == set(range(classes))


def test_count_is_the_number_of_objects_less_three():
    objects = place_objects(CounterRNG.of(1, 0, torch.arange(64).numpy()))
    assert torch.equal(objects.present.sum(1) - 3, SCENES.count)


def test_distance_is_clevrs_class_of_the_nearest_object():
    draws = CounterRNG.of(1, 0, torch.arange(64).numpy())
    objects, camera = place_objects(draws), place_camera(draws)
    for scene in range(64):
        depths = [
            float((objects.centre[scene, k] - camera.place[scene]) @ camera.axes[scene, 2])
            for k in range(COUNTS[1])
            if objects.present[scene, k]
        ]
        assert bisect.bisect_left([8, 8.5, 9, 9.5, 10, 100], min(depths)) == SCENES.distance[scene]


def test_objects_never_touch():
    objects = place_objects(CounterRNG.of(0, 0, torch.arange(500).numpy()))
    apart = torch.cdist(objects.centre[..., :2], objects.centre[..., :2])
    reach = objects.radius[:, :, None] + objects.radius[:, None]
    off = ~torch.eye(objects.radius.shape[1], dtype=torch.bool)
    assert (apart - reach)[:, off].min() > -1e-5


def test_nearly_all_objects_are_seen():
    shown = sum(len(instance.unique()) - 1 for instance in SCENES.instance)
    assert shown > 0.95 * (SCENES.count + 3).sum()


def test_depth_is_nearer_on_objects_than_on_the_floor_behind():
    on_object = SCENES.instance > 0
    assert SCENES.depth.isfinite().all() and SCENES.depth.min() > 4
    columns = SCENES.depth[~on_object.any(2).any(1)] if (~on_object.any(2).any(1)).any() else SCENES.depth
    assert columns[:, 0].mean() > columns[:, -1].mean()


def test_a_sphere_is_hit_where_the_formula_says():
    start, way = torch.tensor([[[0.0, -3.0, 0.0], [0.0, -3.0, 2.0]]]), torch.tensor([[[0.0, 1.0, 0.0]] * 2])
    assert sphere(start, way)[0].tolist() == [pytest.approx(2.0), FAR]
    assert cube(start, way)[0].tolist() == [pytest.approx(2.2), FAR]
    assert cylinder(start, way)[0].tolist() == [pytest.approx(2.0), FAR]


def test_stripes_and_checks_are_equally_bright():
    scene = render(300, (24, 24), seed=3)
    shown = (scene.instance > 0).unsqueeze(1)
    bright = [
        float((scene.image[scene.kind % 3 == texture] * shown[scene.kind % 3 == texture]).sum())
        / float(3 * shown[scene.kind % 3 == texture].sum())
        for texture in (1, 2)
    ]
    assert bright[0] == pytest.approx(bright[1], rel=0.05)
