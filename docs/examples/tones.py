"""Tones that fall, stay or rise, as small spectrograms: a modality.   B batch  F bands  T frames  S samples"""

from dataclasses import dataclass

import torch
from torch import Tensor

from openjepa.core.rng import CounterRNG
from openjepa.core.types import FileList, Layout, Samples, Tokens
from openjepa.nn.stems import WindowEmbed


@dataclass(frozen=True)
class Spectrograms:  # a dataset in memory
    values: Tensor  # S F T
    label: Tensor  # S
    fingerprint: str  # changes when the samples change
    classes: tuple[str, ...] = ("falls", "stays", "rises")

    def __len__(self) -> int:
        return len(self.label)

    source = "tone {}".format  # what messages and tables call a sample

    def read(self, index: Tensor, rng: CounterRNG | None) -> Samples:
        gain = rng.uniform("gain") + 0.5 if rng else torch.ones(len(index))  # without rng: an evaluation view
        return Samples((self.values[index] * gain[:, None, None],), self.label[index])


@dataclass(frozen=True)
class Tones:
    """Generated tones, 16 bands × 32 frames; a token is a patch of 4 × 4 values."""

    noise: float = 0.3  # standard deviation; a setting: --data.noise 0.5
    layout, token_dim = Layout.grid(4, 8), 16  # fixed; a property if it depends on settings

    def listing(self) -> FileList:
        return FileList([], str(self))  # no files; of files: list_files(self.root, self.suffixes)

    def dataset(self, source: FileList, cache: object = None) -> Spectrograms:
        return self.synthetic(2000, seed=0)

    def synthetic(self, size: int, seed: int) -> Spectrograms:
        random = torch.Generator().manual_seed(seed)
        label = torch.randint(3, (size,), generator=random)
        pitch = 16 * torch.rand(size, 1, generator=random) + (label[:, None] - 1) * torch.linspace(0, 8, 32)  # S T
        tone = ((torch.arange(16)[:, None] - pitch[:, None]) * torch.pi / 8).cos()  # S F T: loud around the pitch
        noise = self.noise * torch.randn(tone.shape, generator=random)
        return Spectrograms(tone + noise, label, f"{self} {size} {seed}")

    def tokens(self, view: Tensor) -> Tokens:
        x = view.unflatten(1, (4, 4)).unflatten(3, (8, 4)).transpose(2, 3).flatten(1, 2).flatten(2)  # B 32 16
        pos = torch.cartesian_prod(torch.arange(4.0), torch.arange(8.0)).to(view.device)  # row, column
        return Tokens(x, pos.expand(len(view), -1, -1))

    def tokenizer(self, dim: int) -> WindowEmbed:
        return WindowEmbed(self.token_dim, dim)

    def tokenizer_flops(self, dim: int) -> int:
        return 2 * self.token_dim * dim  # of one token
