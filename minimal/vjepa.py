"""V-JEPA in one file: plain fp32 PyTorch without any import from openjepa.

Bardes et al., "Revisiting Feature Prediction for Learning Visual Representations from Video", 2024, arXiv 2404.08471.
From the same weights, clips and masks the package must give the same losses (checked by tests/test_minimal.py).

`python minimal/vjepa.py` trains ten steps on noise.

B clips  F frames  N tubelets  D width  T target tubelets  C context tubelets
"""

import copy
import math

import torch
import torch.nn.functional as F
from torch import nn


def sincos(grid, dim):
    """Return fixed position embeddings of a grid (times, rows, columns): a third of the width for each of x, y and t.

    The rest of the width is 0. The released code has the times first and cuts off the last columns instead.
    """
    count = dim // 6
    frequency = 10000.0 ** (-torch.arange(count, dtype=torch.float64) / count)
    t, y, x = torch.meshgrid(*(torch.arange(size) for size in grid), indexing="ij")
    angles = [coordinate.reshape(-1, 1) * frequency for coordinate in (x, y, t)]
    table = torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], dim=1).float()
    return F.pad(table, (0, dim - table.shape[1]))  # N D


class Block(nn.Module):
    """A pre-norm transformer block: x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, dim, heads, mlp_ratio=4):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.fc1, self.fc2 = nn.Linear(dim, int(dim * mlp_ratio)), nn.Linear(int(dim * mlp_ratio), dim)

    def forward(self, x):
        batch, count, dim = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, count, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        weights = (q * (dim // self.heads) ** -0.5 @ k.transpose(-1, -2)).softmax(-1)
        x = x + self.proj((weights @ v).transpose(1, 2).reshape(batch, count, dim))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class Encoder(nn.Module):
    """A vision transformer on tubelets, without a class token."""

    pos: torch.Tensor

    def __init__(self, grid, tubelet, patch, dim, depth, heads):
        super().__init__()
        size = (tubelet, patch, patch)
        self.patch_embed = nn.Conv3d(3, dim, size, size)
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.register_buffer("pos", sincos(grid, dim), persistent=False)

    def forward(self, clips, context=None):
        """Encode all tubelets of clips (B F 3 H W), or only those of `context` (C), the same for all clips."""
        x = self.patch_embed(clips.transpose(1, 2)).flatten(2).transpose(1, 2) + self.pos  # B N D
        if context is not None:
            x = x[:, context]
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class Predictor(nn.Module):
    """A narrow transformer on the context features and one mask token per target tubelet."""

    pos: torch.Tensor

    def __init__(self, grid, dim, width, depth, heads, mask_tokens=2):
        super().__init__()
        self.embed = nn.Linear(dim, width)
        self.mask_token = nn.Parameter(torch.zeros(mask_tokens, 1, width))  # one for each mask of a clip
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.proj = nn.Linear(width, dim)
        self.register_buffer("pos", sincos(grid, width), persistent=False)

    def forward(self, features, context, target, number):
        """Predict the features of all hidden tubelets (T) of mask `number` from those of the visible ones (C)."""
        queries = (self.mask_token[number] + self.pos[target]).expand(len(features), -1, -1)
        x = torch.cat([self.embed(features) + self.pos[context], queries], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.proj(self.norm(x[:, len(context) :]))  # B T D


class VJEPA(nn.Module):
    """Context encoder, predictor, and the EMA of the encoder, which provides the targets."""

    def __init__(self, grid, tubelet, patch, dim, depth, heads, width, predictor_depth):
        super().__init__()
        self.encoder = Encoder(grid, tubelet, patch, dim, depth, heads)
        self.predictor = Predictor(grid, dim, width, predictor_depth, heads)
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1 and "mask_token" not in name:
                nn.init.trunc_normal_(parameter, std=0.02)
            elif "norm" not in name:
                nn.init.zeros_(parameter)
        self.target_encoder = copy.deepcopy(self.encoder).requires_grad_(False)

    def loss(self, clips, masks):
        """Predict what each mask of each clip hides: `masks[k][b]` are visible and hidden tubelets (C), (T) of clip b.

        Lengths differ from clip to clip. The loss is the mean absolute difference, then the mean over masks and clips.
        """
        with torch.no_grad():
            features = self.target_encoder(clips)
            features = F.layer_norm(features, features.shape[-1:])
        losses = []
        for number, mask in enumerate(masks):
            for clip, target_features, (context, target) in zip(clips, features, mask, strict=True):
                encoded = self.encoder(clip[None], context)
                predicted = self.predictor(encoded, context, target, number)[0]
                losses.append((predicted - target_features[target]).abs().mean())
        return torch.stack(losses).mean()

    @torch.no_grad()
    def update_ema(self, momentum):
        """Update the target encoder: momentum · target_encoder + (1 - momentum) · encoder."""
        for ema, weight in zip(self.target_encoder.parameters(), self.encoder.parameters(), strict=True):
            ema.lerp_(weight, 1 - momentum)


def draw_mask(grid, blocks, scale, generator, aspect=(0.75, 1.5)):
    """Draw blocks of a frame that are hidden at every time step; return the visible tubelets, and the hidden ones."""
    times, rows, columns = grid
    ratio = aspect[0] + (aspect[1] - aspect[0]) * torch.rand((), generator=generator).item()
    height = min(max(1, round(math.sqrt(rows * columns * scale * ratio))), rows)
    width = min(max(1, round(math.sqrt(rows * columns * scale / ratio))), columns)
    hidden = torch.ones(rows, columns, dtype=torch.bool)
    while hidden.all():  # draws again if nothing would be visible
        hidden[:] = False
        for _ in range(blocks):
            top = torch.randint(rows - height + 1, (), generator=generator)
            left = torch.randint(columns - width + 1, (), generator=generator)
            hidden[top : top + height, left : left + width] = True
    hidden = hidden.flatten().repeat(times)
    return (~hidden).nonzero()[:, 0], hidden.nonzero()[:, 0]


def learning_rate(n, total, warmup, start=2e-4, peak=6.25e-4, end=1e-6):
    """Return the learning rate of step n = 1, 2, …: linear warmup, then cosine decay."""
    if n < warmup:
        return start + n / warmup * (peak - start)
    return end + (peak - end) * 0.5 * (1 + math.cos(math.pi * (n - warmup) / max(1, total - warmup)))


def weight_decay(n, total, start=0.04, end=0.4):
    """Return the weight decay of step n = 1, 2, …: a cosine from start to end."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * n / total))


def build_optimizer(model):
    """Build AdamW with two groups: matrices, which are decayed, and biases and norms, which are not."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [{"params": [p for p in trained if p.ndim > 1]}, {"params": [p for p in trained if p.ndim <= 1]}]
    return torch.optim.AdamW(groups)


def train_step(model, optimizer, n, total, warmup, clips, masks):
    """Take training step n = 1, 2, … of `total` and return the loss."""
    for group, decays in zip(optimizer.param_groups, (True, False), strict=True):
        group["lr"] = learning_rate(n, total, warmup)
        group["weight_decay"] = weight_decay(n, total) if decays else 0.0
    loss = model.loss(clips, masks)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 10.0)
    optimizer.step()
    model.update_ema(0.998 + (n - 1) * (1.0 - 0.998) / total)
    return loss.detach()


def main():
    """Train ten steps on noise to show that the file runs."""
    torch.manual_seed(0)
    grid, generator = (4, 6, 6), torch.Generator().manual_seed(0)
    model = VJEPA(grid, tubelet=2, patch=4, dim=96, depth=3, heads=3, width=48, predictor_depth=2)
    optimizer = build_optimizer(model)
    clips = torch.randn(8, 8, 3, 24, 24)
    for n in range(1, 11):
        short = [draw_mask(grid, 8, 0.15, generator) for _ in clips]
        long = [draw_mask(grid, 2, 0.7, generator) for _ in clips]
        print(f"step {n}  loss {train_step(model, optimizer, n, 10, 2, clips, (short, long)):.4f}")


if __name__ == "__main__":
    main()
