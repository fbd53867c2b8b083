"""The k-nearest-neighbor probe.   S samples  R queries  D width  K classes"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def knn_predict(
    train: Float[Tensor, "S D"],
    label: Int[Tensor, "S"],
    query: Float[Tensor, "R D"],
    classes: int,
    k: int = 20,
    temperature: float = 0.07,
) -> Int[Tensor, "R"]:
    """The class with most weight among the k nearest by cosine, each weighing exp(cosine / temperature).

    The weighting and its temperature are those of Wu et al. (2018), as most published kNN figures use.
    """
    train, query = F.normalize(train, dim=1), F.normalize(query, dim=1)
    answers = []
    for part in query.split(1024):
        similarity, nearest = (part @ train.T).topk(min(k, len(train)), dim=1)
        votes = torch.zeros(len(part), classes, device=part.device).scatter_add_(
            1, label[nearest], (similarity / temperature).exp()
        )
        answers.append(votes.argmax(1))
    return torch.cat(answers)
