"""Rendered scenes are reproducible and labeled by CLEVR's rules; depth and instances match the geometry."""

import bisect

import pytest
import torch

from openjepa.core.rng import CounterRNG
from openjepa.data.synthetic.scenes import (
    COUNTS,
    FAR,
    TASKS,
    compute_labels,
    hit_cube,
    hit_cylinder,
    hit_sphere,
    place_camera,
    place_objects,
    render,
)

SCENES = render(64, (48, 64), seed=1)


def test_a_scene_depends_only_on_seed_and_index():
    alone = render(3, (48, 64), seed=1, first=20)
    assert all(torch.equal(a, b[20:23]) for a, b in zip(alone, SCENES, strict=True))
    assert not torch.equal(render(1, (48, 64), seed=2).image, SCENES.image[:1])


def test_every_class_of_every_task_occurs():
    rng = CounterRNG.of(0, 0, torch.arange(4000).numpy())
    true_labels = compute_labels(place_objects(rng), place_camera(rng))
    for label, classes in zip(true_labels, TASKS.values(), strict=True):
        assert set(label.tolist()) == set(range(classes))


def test_count_is_the_number_of_objects_minus_three():
    objects = place_objects(CounterRNG.of(1, 0, torch.arange(64).numpy()))
    assert torch.equal(objects.present.sum(1) - 3, SCENES.count)


def test_distance_is_the_clevr_class_of_the_nearest_object():
    rng = CounterRNG.of(1, 0, torch.arange(64).numpy())
    objects, camera = place_objects(rng), place_camera(rng)
    for scene in range(64):
        depths = [
            float((objects.center[scene, k] - camera.position[scene]) @ camera.axes[scene, 2])
            for k in range(COUNTS[1])
            if objects.present[scene, k]
        ]
        assert bisect.bisect_left([8, 8.5, 9, 9.5, 10, 100], min(depths)) == SCENES.distance[scene]


def test_objects_never_touch():
    objects = place_objects(CounterRNG.of(0, 0, torch.arange(500).numpy()))
    distances = torch.cdist(objects.center[..., :2], objects.center[..., :2])
    reach = objects.radius[:, :, None] + objects.radius[:, None]
    off_diagonal = ~torch.eye(objects.radius.shape[1], dtype=torch.bool)
    assert (distances - reach)[:, off_diagonal].min() > -1e-5


def test_nearly_all_objects_are_visible():
    visible = sum(len(instance.unique()) - 1 for instance in SCENES.instance)
    assert visible > 0.95 * (SCENES.count + 3).sum()


def test_depth_is_nearer_on_objects_than_on_the_floor_behind():
    on_object = SCENES.instance > 0
    assert SCENES.depth.isfinite().all() and SCENES.depth.min() > 4
    columns = SCENES.depth[~on_object.any(2).any(1)] if (~on_object.any(2).any(1)).any() else SCENES.depth
    assert columns[:, 0].mean() > columns[:, -1].mean()


def test_rays_hit_the_solids_at_the_expected_distance():
    start, direction = torch.tensor([[[0.0, -3.0, 0.0], [0.0, -3.0, 2.0]]]), torch.tensor([[[0.0, 1.0, 0.0]] * 2])
    assert hit_sphere(start, direction)[0].tolist() == [pytest.approx(2.0), FAR]
    assert hit_cube(start, direction)[0].tolist() == [pytest.approx(2.2), FAR]
    assert hit_cylinder(start, direction)[0].tolist() == [pytest.approx(2.0), FAR]


def test_stripes_and_checks_are_equally_bright():
    scenes = render(300, (24, 24), seed=3)
    on_object = (scenes.instance > 0).unsqueeze(1)
    bright = [
        float((scenes.image[scenes.kind % 3 == texture] * on_object[scenes.kind % 3 == texture]).sum())
        / float(3 * on_object[scenes.kind % 3 == texture].sum())
        for texture in (1, 2)
    ]
    assert bright[0] == pytest.approx(bright[1], rel=0.05)
