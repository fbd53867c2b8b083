"""Search a tree of imagined states breadth first, and keep one of those that are alike.

F states of the frontier  C children  K known states  P actions  H steps  N cells  D width of a latent  M of an action
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

ALIKE = 0.3  # part of the squared distance that one step covers, within which two states count as the same


class Way(NamedTuple):
    """The way in imagination to the state that is nearest to a target; staying is a way of no step."""

    actions: Float[Tensor, "H M"]
    states: Float[Tensor, "H N D"]
    imagined: int  # steps of the whole search


class Tree:
    """Known states, and how each was reached."""

    def __init__(self, state: Float[Tensor, "1 N D"]):
        self.states, self.parents, self.actions = state, [-1], [-1]

    def add(self, states: Float[Tensor, "F N D"], parents: list[int], actions: list[int]) -> list[int]:
        """Add states; return their rows."""
        first = len(self.parents)
        self.states, self.parents = torch.cat([self.states, states]), self.parents + parents
        self.actions = self.actions + actions
        return list(range(first, len(self.parents)))

    def trace(self, row: int) -> list[int]:
        """Return the rows from the first state, which is left out, to this one."""
        rows: list[int] = []
        while row > 0:
            rows.append(row)
            row = self.parents[row]
        return rows[::-1]


def search_tree(
    step: Callable[[Tensor, Tensor], Tensor],
    state: Float[Tensor, "1 N D"],
    actions: Float[Tensor, "P M"],
    distance: Callable[[Tensor], Float[Tensor, "F"]],
    budget: int,
) -> Way:
    """Imagine every action from every new state, until one is at the target or `budget` steps were imagined.

    Ways are found in the order of their length. Where a map can be covered by a few hundred states that differ, this
    finds the shortest way around walls, on which a search by samples gets stuck.
    """
    tree, frontier, imagined = Tree(state), [0], 0
    best, nearest, radius = 0, float(distance(state)[0]), 0.0
    while frontier and imagined + len(actions) <= budget:
        rows = frontier[: (budget - imagined) // len(actions)]
        children = step(tree.states[rows].repeat_interleave(len(actions), 0), actions.repeat(len(rows), 1))
        imagined += len(children)
        radius = radius or ALIKE * float(squared_distance(children, state).median())
        new = choose_new(children, tree.states, radius)
        parents = [rows[child // len(actions)] for child in new.tolist()]
        frontier = tree.add(children[new], parents, [child % len(actions) for child in new.tolist()])
        if frontier:
            distances = distance(children[new])
            if float(distances.amin()) < nearest:
                best, nearest = frontier[int(distances.argmin())], float(distances.amin())
        if nearest < radius:
            break
    way = tree.trace(best)
    return Way(actions[[tree.actions[row] for row in way]], tree.states[way], imagined)


def choose_new(children: Float[Tensor, "C N D"], known: Float[Tensor, "K N D"], radius: float) -> Int[Tensor, "F"]:
    """Return which children are like no known state and like no earlier child."""
    fresh = squared_distance(children, known).amin(1) >= radius
    same, chosen = squared_distance(children, children) < radius, []
    for child in fresh.nonzero()[:, 0].tolist():
        if not same[child, chosen].any():
            chosen.append(child)
    return torch.tensor(chosen, dtype=torch.long)


def squared_distance(a: Float[Tensor, "A N D"], b: Float[Tensor, "B N D"]) -> Float[Tensor, "A B"]:
    """Return the mean squared difference of each pair of latents."""
    return torch.cdist(a.flatten(1), b.flatten(1)).square() / a[0].numel()
