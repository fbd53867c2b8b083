"""I-JEPA in one file: plain fp32 PyTorch without any import from openjepa.

Assran et al., "Self-Supervised Learning from Images with a Joint-Embedding Predictive Architecture", CVPR 2023.
From the same weights, images and masks the package must give the same losses (checked by tests/test_minimal.py).

`python minimal/ijepa.py` trains ten steps on noise.

B images  N patches  D width  M target blocks  T patches per block  C context patches
"""

import copy
import math

import torch
import torch.nn.functional as F
from torch import nn


def sincos(grid, dim):
    """Return fixed position embeddings of a grid: half of the width for the column, half for the row; sines first."""
    frequency = 10000.0 ** (-torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    y, x = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    angles = [coordinate.reshape(-1, 1) * frequency for coordinate in (x, y)]
    return torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], dim=1).float()  # N D


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
    """A vision transformer without a class token."""

    pos: torch.Tensor

    def __init__(self, grid, patch, dim, depth, heads):
        super().__init__()
        self.patch_embed = nn.Conv2d(3, dim, patch, patch)
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.register_buffer("pos", sincos(grid, dim), persistent=False)

    def forward(self, images, context=None):
        """Encode all patches, or only those of `context` (B C)."""
        x = self.patch_embed(images).flatten(2).transpose(1, 2) + self.pos  # B N D
        if context is not None:
            x = gather(x, context)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class Predictor(nn.Module):
    """A narrow transformer on the context features and one mask token per target patch."""

    pos: torch.Tensor

    def __init__(self, grid, dim, width, depth, heads):
        super().__init__()
        self.embed = nn.Linear(dim, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.proj = nn.Linear(width, dim)
        self.register_buffer("pos", sincos(grid, width), persistent=False)

    def forward(self, features, context, target):
        """Predict the features of one target block (B T) from the features of the context patches (B C)."""
        x = torch.cat([self.embed(features) + self.pos[context], self.mask_token + self.pos[target]], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.proj(self.norm(x[:, context.shape[1] :]))  # B T D


def gather(x, index):
    """Select the rows of each sample: x B N D, index B K -> B K D."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))


class IJEPA(nn.Module):
    """Context encoder, predictor, and the EMA of the encoder, which provides the targets."""

    def __init__(self, grid, patch, dim, depth, heads, width, predictor_depth):
        super().__init__()
        self.encoder = Encoder(grid, patch, dim, depth, heads)
        self.predictor = Predictor(grid, dim, width, predictor_depth, heads)
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                nn.init.trunc_normal_(parameter, std=0.02)
            elif "norm" not in name:
                nn.init.zeros_(parameter)
        self.target_encoder = copy.deepcopy(self.encoder).requires_grad_(False)

    def loss(self, images, context, target):
        """Predict every target block from the context: `context` B C and `target` B M T are indices of patches."""
        with torch.no_grad():
            features = self.target_encoder(images)
            features = F.layer_norm(features, features.shape[-1:])  # official code; the paper does not mention it
        encoded = self.encoder(images, context)
        losses = [
            F.smooth_l1_loss(self.predictor(encoded, context, block), gather(features, block))
            for block in target.unbind(1)
        ]
        return torch.stack(losses).mean()

    @torch.no_grad()
    def update_ema(self, momentum):
        """Update the target encoder: momentum · target_encoder + (1 - momentum) · encoder."""
        for ema, weight in zip(self.target_encoder.parameters(), self.encoder.parameters(), strict=True):
            ema.lerp_(weight, 1 - momentum)


def learning_rate(n, total, warmup, start=2e-4, peak=1e-3, end=1e-6):
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


def train_step(model, optimizer, n, total, warmup, images, context, target):
    """Take training step n = 1, 2, … of `total` and return the loss."""
    for group, decays in zip(optimizer.param_groups, (True, False), strict=True):
        group["lr"] = learning_rate(n, total, warmup)
        group["weight_decay"] = weight_decay(n, total) if decays else 0.0
    loss = model.loss(images, context, target)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    model.update_ema(0.996 + (n - 1) * (1.0 - 0.996) / total)
    return loss.detach()


def main():
    """Train ten steps on noise, with one target block in four copies, to show that the file runs."""
    torch.manual_seed(0)
    model = IJEPA(grid=(8, 8), patch=4, dim=96, depth=3, heads=3, width=48, predictor_depth=2)
    optimizer = build_optimizer(model)
    images = torch.randn(16, 3, 32, 32)
    patches = torch.arange(64).view(8, 8)
    target = patches[2:5, 3:6].reshape(1, 1, 9).expand(16, 4, 9)
    context = torch.cat([patches[6:].flatten(), patches[0]]).expand(16, -1)
    for n in range(1, 11):
        print(f"step {n}  loss {train_step(model, optimizer, n, 10, 2, images, context, target):.4f}")


if __name__ == "__main__":
    main()
