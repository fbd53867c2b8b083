"""Render CLEVR-like scenes with labels.

S scenes  K objects  P pixels  Q objects of one shape, over all scenes  H height  W width
"""

from __future__ import annotations

import bisect
import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from openjepa.core.rng import CounterRNG

SHAPES = ("sphere", "cube", "cylinder")

MATERIALS = ("rubber", "metal")

TEXTURES = ("plain", "stripes", "checks")

COUNTS = (3, 10)  # CLEVR's minimum and maximum number of objects

DISTANCES = (8.0, 8.5, 9.0, 9.5, 10.0, 100.0)  # upper edges of the classes of Clevr/Dist

COLORS = torch.tensor(  # CLEVR's eight
    [[87, 87, 87], [173, 35, 35], [42, 75, 215], [29, 105, 20],
     [129, 74, 25], [129, 38, 192], [41, 208, 208], [255, 238, 51]]
).float().div(255)  # fmt: skip

CELLS = 4  # per side of the board; objects stand in different cells, so they never touch

BOARD = 3.0  # half the side of the board

CHUNK = 64  # scenes rendered at a time

FAR = 1e6  # the distance of a ray that hits nothing


class Scenes(NamedTuple):
    """Rendered images and their ground truth."""

    image: UInt8[Tensor, "S 3 H W"]
    count: Int[Tensor, "S"]  # Clevr/Count: number of objects minus 3; 8 classes
    distance: Int[Tensor, "S"]  # Clevr/Dist: binned depth of the nearest object's center; 6 classes
    kind: Int[Tensor, "S"]  # shape × material × texture of the nearest object; 18 classes
    depth: Float[Tensor, "S H W"]  # along the viewing axis
    instance: UInt8[Tensor, "S H W"]  # 0: floor; 1 to K: objects


TASKS = {
    "count": COUNTS[1] - COUNTS[0] + 1,
    "distance": len(DISTANCES),
    "kind": len(SHAPES) * len(MATERIALS) * len(TEXTURES),
}


class Objects(NamedTuple):
    """The objects of each scene, padded to the largest count; `present` marks the real ones."""

    center: Float[Tensor, "S K 3"]
    radius: Float[Tensor, "S K"]
    angle: Float[Tensor, "S K"]
    shape: Int[Tensor, "S K"]
    metal: Bool[Tensor, "S K"]
    texture: Int[Tensor, "S K"]
    color: Float[Tensor, "S K 3"]
    phase: Float[Tensor, "S K 3"]  # offset of the texture
    present: Bool[Tensor, "S K"]


class Camera(NamedTuple):
    """The camera and the light of each scene."""

    position: Float[Tensor, "S 3"]
    axes: Float[Tensor, "S 3 3"]  # unit vectors right, up, forward
    light: Float[Tensor, "S 3"]  # unit vector towards the light


def render(num_scenes: int, size: tuple[int, int], seed: int, first: int = 0) -> Scenes:
    """Render scenes of `size` (height, width) pixels; scene i is a function of (seed, first + i) alone."""
    parts = []
    for start in range(first, first + num_scenes, CHUNK):
        index = np.arange(start, min(start + CHUNK, first + num_scenes))
        rng = CounterRNG.of(seed, 0, index)
        objects, camera = place_objects(rng), place_camera(rng)
        parts.append((*trace_rays(objects, camera, size), *compute_labels(objects, camera)))
    image, depth, instance, count, distance, kind = (torch.cat(part) for part in zip(*parts, strict=True))
    return Scenes(image, count, distance, kind, depth, instance)


def place_objects(rng: CounterRNG) -> Objects:
    """Draw the objects of each scene and put them into different cells of the board."""
    max_count = COUNTS[1]
    count = COUNTS[0] + (rng.uniform("count") * (max_count - COUNTS[0] + 1)).long()
    cell = rng.uniform("cell", CELLS * CELLS).argsort(dim=1)[:, :max_count]
    radius = 0.45 + 0.25 * rng.uniform("radius", max_count)
    slack = BOARD / CELLS - radius  # how far an object may move from the center of its cell
    jitter = (2 * rng.uniform("jitter", max_count, 2) - 1) * slack[..., None]
    corner = torch.stack([cell % CELLS, cell // CELLS], -1)
    flat = (corner + 0.5) * (2 * BOARD / CELLS) - BOARD + jitter
    kind = rng.uniform("looks", 1, 3).expand(-1, max_count, -1)  # all objects of a scene are of one kind
    return Objects(
        torch.cat([flat, radius[..., None]], -1),
        radius,
        rng.uniform("angle", max_count) * 2 * math.pi,
        (kind[..., 0] * len(SHAPES)).long(),
        kind[..., 1] < 0.5,
        (kind[..., 2] * len(TEXTURES)).long(),
        COLORS[(rng.uniform("colour", max_count) * len(COLORS)).long()],
        rng.uniform("phase", max_count, 3) * 2 * math.pi,
        torch.arange(max_count) < count[:, None],
    )


def place_camera(rng: CounterRNG) -> Camera:
    """Draw a jittered camera and light.

    The camera is nearly as far away as CLEVR's but higher, so that the board fills the frame.
    """
    jitter = 2 * rng.uniform("camera", 2, 3) - 1
    position = torch.tensor([0.0, -7.8, 7.25]) + 0.5 * jitter[:, 0]
    forward = normalize(torch.tensor([0.0, 0.0, 0.2]) - position)
    right = normalize(torch.linalg.cross(forward, torch.tensor([0.0, 0.0, 1.0]).expand_as(forward)))
    light = normalize(torch.tensor([2.0, -5.0, 6.0]) + jitter[:, 1])
    return Camera(position, torch.stack([right, torch.linalg.cross(right, forward), forward], 1), light)


def compute_labels(objects: Objects, camera: Camera) -> tuple[Int[Tensor, "S"], Int[Tensor, "S"], Int[Tensor, "S"]]:
    """Return the labels of Clevr/Count and Clevr/Dist, and the kind of the nearest object."""
    depth = ((objects.center - camera.position[:, None]) * camera.axes[:, None, 2]).sum(-1)
    nearest = torch.where(objects.present, depth, FAR).min(1)
    distance = torch.tensor([bisect.bisect_left(DISTANCES, value) for value in nearest.values.tolist()])
    kind = (objects.shape * len(MATERIALS) + objects.metal) * len(TEXTURES) + objects.texture
    return objects.present.sum(1) - COUNTS[0], distance, kind.gather(1, nearest.indices[:, None])[:, 0]


def trace_rays(objects: Objects, camera: Camera, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Return image, depth and instances of some scenes: one camera ray and one shadow ray per pixel."""
    height, width = size
    scenes = len(camera.position)
    v, u = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    tan_half_fov = 0.345  # vertical; the board fills the frame
    across = ((u + 0.5) / width * 2 - 1) * tan_half_fov * width / height
    rays = torch.stack([across, (1 - (v + 0.5) / height * 2) * tan_half_fov, torch.ones_like(across)], -1).view(-1, 3)
    ray = normalize(rays @ camera.axes)  # S P 3
    origin = camera.position[:, None].expand_as(ray)

    distance, local = intersect(objects, origin, ray)  # S K P, S K P 3
    near, nearest = distance.min(1)
    floor = -origin[..., 2] / ray[..., 2].clamp(max=-1e-3)
    on_object = near < floor
    reach = torch.where(on_object, near, floor)
    point = origin + reach[..., None] * ray

    normal, color, metal = evaluate_surface(objects, nearest, local, point, on_object)
    light = camera.light[:, None].expand_as(ray)
    shadow = intersect(objects, point + 1e-3 * normal, light)[0].min(1).values < FAR
    diffuse = (normal * light).sum(-1).clamp(min=0) * ~shadow
    specular = (normal * normalize(light - ray)).sum(-1).clamp(min=0) ** 40 * ~shadow
    shade = (0.35 + 0.75 * diffuse)[..., None] * color + (0.8 * specular * metal)[..., None]
    image = (shade.clamp(0, 1) ** (1 / 1.6) * 255).round().to(torch.uint8).mT.reshape(scenes, 3, height, width)

    depth = reach * (ray * camera.axes[:, None, 2]).sum(-1)
    instance = torch.where(on_object, nearest + 1, 0).to(torch.uint8)
    return image, depth.view(scenes, height, width), instance.view(scenes, height, width)


def intersect(
    objects: Objects, origin: Float[Tensor, "S P 3"], ray: Float[Tensor, "S P 3"]
) -> tuple[Float[Tensor, "S K P"], Float[Tensor, "S K P 3"]]:
    """Return the distance along each ray to each object, and the hit point in the object's unit frame.

    The distance is FAR if the ray misses the object.
    """
    scenes, max_count = objects.radius.shape
    distance = torch.full((scenes, max_count, ray.shape[1]), FAR)
    local = torch.zeros(scenes, max_count, ray.shape[1], 3)
    for shape, hit_shape in enumerate((hit_sphere, hit_cube, hit_cylinder)):
        scene, k = torch.where(objects.present & (objects.shape == shape))
        to_local = rotation_matrix(objects.angle[scene, k]) / objects.radius[scene, k, None, None]
        start = (origin[scene] - objects.center[scene, k, None]) @ to_local  # Q P 3
        direction = ray[scene] @ to_local
        t = hit_shape(start, direction)
        distance[scene, k] = t
        local[scene, k] = start + t[..., None] * direction
    return distance, local


def rotation_matrix(angle: Float[Tensor, "Q"]) -> Float[Tensor, "Q 3 3"]:
    """Return rotations about the vertical axis; row vectors times them go from world axes to object axes."""
    cos, sin, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    return torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], -1).view(-1, 3, 3)


def hit_sphere(start: Float[Tensor, "Q P 3"], direction: Float[Tensor, "Q P 3"]) -> Float[Tensor, "Q P"]:
    """Return the distance to the unit sphere."""
    a, b, c = (direction * direction).sum(-1), (start * direction).sum(-1), (start * start).sum(-1) - 1
    return discard_behind(solve_quadratic(a, b, c))


def hit_cube(start: Float[Tensor, "Q P 3"], direction: Float[Tensor, "Q P 3"]) -> Float[Tensor, "Q P"]:
    """Return the distance to a cube about as large as the unit sphere."""
    half_edge = 0.8
    one, other = (-half_edge - start) / direction, (half_edge - start) / direction
    enter, leave = torch.minimum(one, other).amax(-1), torch.maximum(one, other).amin(-1)
    return discard_behind(torch.where(enter < leave, enter, FAR))


def hit_cylinder(start: Float[Tensor, "Q P 3"], direction: Float[Tensor, "Q P 3"]) -> Float[Tensor, "Q P"]:
    """Return the distance to an upright cylinder of radius 1 and height 2: its wall or its top."""
    (sx, sy, sz), (dx, dy, dz) = start.unbind(-1), direction.unbind(-1)
    wall = solve_quadratic(dx * dx + dy * dy, sx * dx + sy * dy, sx * sx + sy * sy - 1)
    wall = torch.where((sz + wall * dz).abs() <= 1, wall, FAR)
    top = (1 - sz) / dz
    top = torch.where((sx + top * dx) ** 2 + (sy + top * dy) ** 2 <= 1, top, FAR)
    return torch.minimum(discard_behind(wall), discard_behind(top))


def solve_quadratic(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Return the smaller root of a t² + 2 b t + c = 0, or FAR if there is no real root."""
    discriminant = b * b - a * c
    return torch.where(discriminant > 0, (-b - discriminant.clamp(min=0).sqrt()) / a, FAR)


def discard_behind(t: Tensor) -> Tensor:
    """Set the distance of hits behind the start of the ray to FAR."""
    return torch.where(t > 1e-4, t, FAR)


def evaluate_surface(
    objects: Objects,
    nearest: Int[Tensor, "S P"],
    local: Float[Tensor, "S K P 3"],
    point: Float[Tensor, "S P 3"],
    on_object: Bool[Tensor, "S P"],
) -> tuple[Float[Tensor, "S P 3"], Float[Tensor, "S P 3"], Bool[Tensor, "S P"]]:
    """Return normal, color and whether the material is metal at the point each pixel shows."""
    scenes = torch.arange(len(nearest))[:, None]
    p = local.gather(1, nearest[:, None, :, None].expand(-1, 1, -1, 3))[:, 0]  # S P 3
    shape, texture = objects.shape[scenes, nearest], objects.texture[scenes, nearest]

    face = torch.where(p.abs() >= p.abs().amax(-1, keepdim=True), p.sign(), 0.0)
    flat = torch.stack([p[..., 0], p[..., 1], torch.zeros_like(p[..., 2])], -1)
    cap = torch.tensor([0.0, 0.0, 1.0]).expand_as(p)
    side = torch.where((p[..., 2:] > 0.999), cap, flat)
    local_normal = torch.where((shape == 0)[..., None], p, torch.where((shape == 1)[..., None], face, side))
    to_world = rotation_matrix(objects.angle[scenes, nearest].flatten()).mT.view(*nearest.shape, 3, 3)
    normal = normalize((local_normal[..., None, :] @ to_world)[..., 0, :])
    normal = torch.where(on_object[..., None], normal, cap)

    phase = objects.phase[scenes, nearest]
    stripes = torch.sin(p[..., 2] * 9 + phase[..., 0]) > 0
    checks = (torch.sin(p * 6 + phase) > 0).sum(-1) % 2 == 1
    bright = torch.where(texture == 1, stripes, checks)[..., None]
    paint = objects.color[scenes, nearest]
    paint = torch.where((texture == 0)[..., None], paint, 0.35 * paint + 0.65 * bright)
    tile = ((point[..., :2] / 1.5).floor().sum(-1) % 2)[..., None]
    color = torch.where(on_object[..., None], paint, (0.42 + 0.14 * tile).expand_as(paint))
    return normal, color, objects.metal[scenes, nearest] & on_object


def normalize(v: Float[Tensor, "*S 3"]) -> Float[Tensor, "*S 3"]:
    """Scale vectors to length 1."""
    return v / v.norm(dim=-1, keepdim=True).clamp(min=1e-9)
