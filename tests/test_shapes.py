"""The tests check array shapes in annotations: in the first calls of a function in every test."""

import pytest
import torch
from jaxtyping import TypeCheckError

from openjepa.nn.positions import rope_angles
from tests import shapes


@pytest.mark.parametrize("test", range(2))
def test_the_first_calls_of_every_test_are_checked(test):
    good, bad = torch.zeros(1, 16, 2), torch.zeros(16, 2)
    for _ in range(shapes.CHECKED_CALLS - 1):
        rope_angles(good, 8)
    with pytest.raises(TypeCheckError, match="rope_angles"):
        rope_angles(bad, 8)
    assert rope_angles(bad, 8).cos.ndim == 3  # the call after those


def test_closures_of_one_definition_share_their_calls():
    decorated = []

    def doubling():
        def double(number: int) -> int:
            return 2 * number

        return shapes.count_calls(double, lambda function: decorated.append(function) or function)

    assert [doubling()(number) for number in range(30)] == list(range(0, 60, 2))
    assert len(decorated) == shapes.CHECKED_CALLS
