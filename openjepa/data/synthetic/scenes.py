"""Render CLEVR-like scenes with labels."""

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

COUNTS = (3, 10)  # CLEVR's numbers of objects, both included

DISTANCES = (8.0, 8.5, 9.0, 9.5, 10.0, 100.0)  # upper edges of Clevr/Dist's classes

COLOURS = torch.tensor(  # CLEVR's eight
    [[87, 87, 87], [173, 35, 35], [42, 75, 215], [29, 105, 20], [129, 74, 25], [129, 38, 192], [41, 208, 208], [255, 238, 51]]
).float().div(255)  # fmt: skip

CELLS = 4  # objects stand in different cells of a 4×4 board, so they never touch

BOARD = 3.0  # half its side

CHUNK = 64  # scenes rendered at a time

FAR = 1e6


class Scenes(NamedTuple):
    """Rendered scenes and what is true of them."""

    image: UInt8[Tensor, "S 3 H W"]
    count: Int[Tensor, "S"]  # Clevr/Count: objects, less 3: 8 classes
    distance: Int[Tensor, "S"]  # Clevr/Dist: depth of the nearest object's centre: 6 classes
    kind: Int[Tensor, "S"]  # the nearest object's shape × material × texture: 18 classes
    depth: Float[Tensor, "S H W"]  # along the viewing axis
    instance: UInt8[Tensor, "S H W"]  # 0 floor, then the objects from 1


TASKS = {
    "count": COUNTS[1] - COUNTS[0] + 1,
    "distance": len(DISTANCES),
    "kind": len(SHAPES) * len(MATERIALS) * len(TEXTURES),
}


class Objects(NamedTuple):
    """What stands in each scene; objects beyond a scene's count are absent."""

    centre: Float[Tensor, "S K 3"]
    radius: Float[Tensor, "S K"]
    angle: Float[Tensor, "S K"]
    shape: Int[Tensor, "S K"]
    metal: Bool[Tensor, "S K"]
    texture: Int[Tensor, "S K"]
    colour: Float[Tensor, "S K 3"]
    phase: Float[Tensor, "S K 3"]  # where the texture begins
    present: Bool[Tensor, "S K"]


class Camera(NamedTuple):
    place: Float[Tensor, "S 3"]
    axes: Float[Tensor, "S 3 3"]  # right, up, forward
    light: Float[Tensor, "S 3"]


def render(size: int, pixels: tuple[int, int], seed: int, first: int = 0) -> Scenes:
    """`size` scenes of `pixels` (height, width); scene i is a function of (seed, first + i) alone."""
    parts = []
    for start in range(first, first + size, CHUNK):
        numbers = np.arange(start, min(start + CHUNK, first + size))
        draws = CounterRNG.of(seed, 0, numbers)
        objects, camera = place_objects(draws), place_camera(draws)
        parts.append((*picture(objects, camera, pixels), *labels(objects, camera)))
    image, depth, instance, count, distance, kind = (torch.cat(part) for part in zip(*parts, strict=True))
    return Scenes(image, count, distance, kind, depth, instance)


def place_objects(draws: CounterRNG) -> Objects:
    most = COUNTS[1]
    count = COUNTS[0] + (draws.uniform("count") * (most - COUNTS[0] + 1)).long()
    cell = draws.uniform("cell", CELLS * CELLS).argsort(dim=1)[:, :most]
    radius = 0.45 + 0.25 * draws.uniform("radius", most)
    room = BOARD / CELLS - radius  # half of what is left of a cell
    jitter = (2 * draws.uniform("jitter", most, 2) - 1) * room[..., None]
    corner = torch.stack([cell % CELLS, cell // CELLS], -1)
    flat = (corner + 0.5) * (2 * BOARD / CELLS) - BOARD + jitter
    pick = draws.uniform("looks", 1, 3).expand(-1, most, -1)  # a scene's objects are of one kind
    return Objects(
        torch.cat([flat, radius[..., None]], -1),
        radius,
        draws.uniform("angle", most) * 2 * math.pi,
        (pick[..., 0] * len(SHAPES)).long(),
        pick[..., 1] < 0.5,
        (pick[..., 2] * len(TEXTURES)).long(),
        COLOURS[(draws.uniform("colour", most) * len(COLOURS)).long()],
        draws.uniform("phase", most, 3) * 2 * math.pi,
        torch.arange(most) < count[:, None],
    )


def place_camera(draws: CounterRNG) -> Camera:
    """Nearly as far away as CLEVR's camera but higher, so that the board fills the frame; place and light are jittered."""
    shake = 2 * draws.uniform("camera", 2, 3) - 1
    place = torch.tensor([0.0, -7.8, 7.25]) + 0.5 * shake[:, 0]
    forward = unit(torch.tensor([0.0, 0.0, 0.2]) - place)
    right = unit(torch.linalg.cross(forward, torch.tensor([0.0, 0.0, 1.0]).expand_as(forward)))
    light = unit(torch.tensor([2.0, -5.0, 6.0]) + shake[:, 1])
    return Camera(place, torch.stack([right, torch.linalg.cross(right, forward), forward], 1), light)


def labels(objects: Objects, camera: Camera) -> tuple[Int[Tensor, "S"], Int[Tensor, "S"], Int[Tensor, "S"]]:
    """Clevr/Count, Clevr/Dist and the kind of the nearest object."""
    depth = ((objects.centre - camera.place[:, None]) * camera.axes[:, None, 2]).sum(-1)
    nearest = torch.where(objects.present, depth, FAR).min(1)
    distance = torch.tensor([bisect.bisect_left(DISTANCES, value) for value in nearest.values.tolist()])
    kind = (objects.shape * len(MATERIALS) + objects.metal) * len(TEXTURES) + objects.texture
    return objects.present.sum(1) - COUNTS[0], distance, kind.gather(1, nearest.indices[:, None])[:, 0]


def picture(objects: Objects, camera: Camera, pixels: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Image, depth and instances of some scenes: one ray a pixel, one more towards the light."""
    height, width = pixels
    scenes = len(camera.place)
    v, u = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    field = 0.345  # tangent of half the vertical field of view: the board fills the frame
    across = ((u + 0.5) / width * 2 - 1) * field * width / height
    rays = torch.stack([across, (1 - (v + 0.5) / height * 2) * field, torch.ones_like(across)], -1).view(-1, 3)
    ray = unit(rays @ camera.axes)  # S P 3
    origin = camera.place[:, None].expand_as(ray)

    reach, local = hits(objects, origin, ray)  # S K P, S K P 3
    near, which = reach.min(1)
    floor = -origin[..., 2] / ray[..., 2].clamp(max=-1e-3)
    on_object = near < floor
    far = torch.where(on_object, near, floor)
    point = origin + far[..., None] * ray

    normal, colour, metal = surface(objects, which, local, point, on_object)
    towards = camera.light[:, None].expand_as(ray)
    shadow = hits(objects, point + 1e-3 * normal, towards)[0].min(1).values < FAR
    diffuse = (normal * towards).sum(-1).clamp(min=0) * ~shadow
    glint = (normal * unit(towards - ray)).sum(-1).clamp(min=0) ** 40 * ~shadow
    shade = (0.35 + 0.75 * diffuse)[..., None] * colour + (0.8 * glint * metal)[..., None]
    image = (shade.clamp(0, 1) ** (1 / 1.6) * 255).round().to(torch.uint8).mT.reshape(scenes, 3, height, width)

    depth = far * (ray * camera.axes[:, None, 2]).sum(-1)
    instance = torch.where(on_object, which + 1, 0).to(torch.uint8)
    return image, depth.view(scenes, height, width), instance.view(scenes, height, width)


def hits(
    objects: Objects, origin: Float[Tensor, "S P 3"], ray: Float[Tensor, "S P 3"]
) -> tuple[Float[Tensor, "S K P"], Float[Tensor, "S K P 3"]]:
    """How far along each ray each object is (FAR: not hit), and where it is hit in the object's own unit frame."""
    scenes, most = objects.radius.shape
    reach = torch.full((scenes, most, ray.shape[1]), FAR)
    local = torch.zeros(scenes, most, ray.shape[1], 3)
    for number, solid in enumerate((sphere, cube, cylinder)):
        scene, place = torch.where(objects.present & (objects.shape == number))
        turn = rotation(objects.angle[scene, place]) / objects.radius[scene, place, None, None]
        start = (origin[scene] - objects.centre[scene, place, None]) @ turn  # Q P 3
        way = ray[scene] @ turn
        t = solid(start, way)
        reach[scene, place] = t
        local[scene, place] = start + t[..., None] * way
    return reach, local


def rotation(angle: Float[Tensor, "Q"]) -> Float[Tensor, "Q 3 3"]:
    """About the vertical; rows times this go from the world's axes to the object's."""
    cos, sin, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    return torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], -1).view(-1, 3, 3)


def sphere(start: Float[Tensor, "Q P 3"], way: Float[Tensor, "Q P 3"]) -> Float[Tensor, "Q P"]:
    return ahead(quadratic((way * way).sum(-1), (start * way).sum(-1), (start * start).sum(-1) - 1))


def cube(start: Float[Tensor, "Q P 3"], way: Float[Tensor, "Q P 3"]) -> Float[Tensor, "Q P"]:
    side = 0.8  # half an edge: a cube about as large as the other solids
    one, other = (-side - start) / way, (side - start) / way
    enter, leave = torch.minimum(one, other).amax(-1), torch.maximum(one, other).amin(-1)
    return ahead(torch.where(enter < leave, enter, FAR))


def cylinder(start: Float[Tensor, "Q P 3"], way: Float[Tensor, "Q P 3"]) -> Float[Tensor, "Q P"]:
    (sx, sy, sz), (wx, wy, wz) = start.unbind(-1), way.unbind(-1)
    wall = quadratic(wx * wx + wy * wy, sx * wx + sy * wy, sx * sx + sy * sy - 1)
    wall = torch.where((sz + wall * wz).abs() <= 1, wall, FAR)
    top = (1 - sz) / wz
    top = torch.where((sx + top * wx) ** 2 + (sy + top * wy) ** 2 <= 1, top, FAR)
    return torch.minimum(ahead(wall), ahead(top))


def quadratic(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """The nearer root of a t² + 2 b t + c = 0, FAR without one."""
    inside = b * b - a * c
    return torch.where(inside > 0, (-b - inside.clamp(min=0).sqrt()) / a, FAR)


def ahead(t: Tensor) -> Tensor:
    """Only what lies in front counts."""
    return torch.where(t > 1e-4, t, FAR)


def surface(
    objects: Objects,
    which: Int[Tensor, "S P"],
    local: Tensor,
    point: Float[Tensor, "S P 3"],
    on_object: Bool[Tensor, "S P"],
) -> tuple[Float[Tensor, "S P 3"], Float[Tensor, "S P 3"], Bool[Tensor, "S P"]]:
    """Normal, colour and metal at the point that each pixel sees."""
    scenes = torch.arange(len(which))[:, None]
    p = local.gather(1, which[:, None, :, None].expand(-1, 1, -1, 3))[:, 0]  # S P 3
    shape, texture = objects.shape[scenes, which], objects.texture[scenes, which]

    face = torch.where(p.abs() >= p.abs().amax(-1, keepdim=True), p.sign(), 0.0)
    flat = torch.stack([p[..., 0], p[..., 1], torch.zeros_like(p[..., 2])], -1)
    cap = torch.tensor([0.0, 0.0, 1.0]).expand_as(p)
    side = torch.where((p[..., 2:] > 0.999), cap, flat)
    own = torch.where((shape == 0)[..., None], p, torch.where((shape == 1)[..., None], face, side))
    turn = rotation(objects.angle[scenes, which].flatten()).mT.view(*which.shape, 3, 3)
    normal = unit((own[..., None, :] @ turn)[..., 0, :])
    normal = torch.where(on_object[..., None], normal, cap)

    phase = objects.phase[scenes, which]
    stripes = torch.sin(p[..., 2] * 9 + phase[..., 0]) > 0
    checks = (torch.sin(p * 6 + phase) > 0).sum(-1) % 2 == 1
    bright = torch.where(texture == 1, stripes, checks)[..., None]
    paint = objects.colour[scenes, which]
    paint = torch.where((texture == 0)[..., None], paint, 0.35 * paint + 0.65 * bright)
    tile = ((point[..., :2] / 1.5).floor().sum(-1) % 2)[..., None]
    colour = torch.where(on_object[..., None], paint, (0.42 + 0.14 * tile).expand_as(paint))
    return normal, colour, objects.metal[scenes, which] & on_object


def unit(v: Float[Tensor, "*S 3"]) -> Float[Tensor, "*S 3"]:
    return v / v.norm(dim=-1, keepdim=True).clamp(min=1e-9)
