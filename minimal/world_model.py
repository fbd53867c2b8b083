"""A world model that plans, in one file: plain fp32 PyTorch without any import from openjepa.

A recurrent JEPA as in LeCun, "A Path Towards Autonomous Machine Intelligence", 2022: an encoder, dynamics that predict
the next latent from this one and an action, and terms that keep latents from collapsing. MPPI (Williams et al., ICRA
2017) plans in it. From the same weights and walks the package must give the same losses and plans (checked by
tests/test_minimal.py).

`python minimal/world_model.py` trains ten steps on noise, and plans.

B batch  T steps  N cells  D width of a latent  A action's width  S sampled plans  H steps of a plan
"""

import torch
import torch.nn.functional as F
from torch import nn


class Encoder(nn.Module):
    """Frames (R C H W) to latents (R N D): one per patch, with residual 3×3 convolutions over patches."""

    def __init__(self, channels, patch, side, hidden, depth, dim):
        super().__init__()
        self.patch, self.side = patch, side
        self.patch_embed = nn.Linear(channels * patch**2, hidden)
        self.norms = nn.ModuleList(nn.GroupNorm(1, hidden) for _ in range(depth))
        self.convs = nn.ModuleList(nn.Conv2d(hidden, hidden, 3, padding=1) for _ in range(depth))
        self.head = nn.Conv2d(hidden, dim, 1)

    def forward(self, frames):
        patches = F.unfold(frames, self.patch, stride=self.patch).transpose(1, 2)  # R N C·p·p
        x = self.patch_embed(patches).transpose(1, 2).unflatten(2, (self.side, self.side))
        for norm, conv in zip(self.norms, self.convs, strict=True):
            x = x + conv(F.silu(norm(x)))
        return self.head(F.silu(x)).flatten(2).transpose(1, 2)


class Dynamics(nn.Module):
    """Change a latent by 3×3 convolutions, whose channels the action scales and shifts."""

    def __init__(self, dim, action_dim, side, hidden=24):
        super().__init__()
        self.side = side
        self.convs = nn.ModuleList([nn.Conv2d(dim, hidden, 3, padding=1), nn.Conv2d(hidden, hidden, 3, padding=1)])
        self.films = nn.ModuleList(nn.Linear(action_dim, 2 * hidden) for _ in range(2))
        self.out = nn.Conv2d(hidden, dim, 3, padding=1)

    def forward(self, state, action):
        x = state.transpose(1, 2).unflatten(2, (self.side, self.side))
        for conv, film in zip(self.convs, self.films, strict=True):
            scale, shift = film(action)[:, :, None, None].chunk(2, dim=1)
            x = F.silu(conv(x) * (1 + scale) + shift)
        return state + self.out(x).flatten(2).transpose(1, 2)


class Inverse(nn.Module):
    """Guess the action between two latents from local changes, summed over cells."""

    def __init__(self, dim, action_dim, side, hidden=24):
        super().__init__()
        self.side = side
        self.hidden = nn.Conv2d(2 * dim, hidden, 3, padding=1)
        self.out = nn.Conv2d(hidden, action_dim, 1)

    def forward(self, state, following):
        x = torch.cat([state, following - state], dim=-1).transpose(1, 2).unflatten(2, (self.side, self.side))
        return self.out(F.silu(self.hidden(x))).sum((2, 3))


class WorldModel(nn.Module):
    """Encoder, dynamics and inverse dynamics, with the loss of a batch of walks."""

    def __init__(self, channels, patch, side, action_dim, hidden=32, depth=2, dim=16):
        super().__init__()
        self.encoder = Encoder(channels, patch, side, hidden, depth, dim)
        self.dynamics = Dynamics(dim, action_dim, side)
        self.inverse = Inverse(dim, action_dim, side)

    def loss(self, frames, actions, prediction=40.0, variance=16.0, covariance=1.0, inverse=60.0):
        """Roll out the first latent of walks (B T+1 C H W) under their actions (B T A), and match what was seen.

        Variance and covariance are VICReg's, over all cells of all frames.
        """
        states = self.encoder(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])  # B T+1 N D
        imagined = self.unroll(states[:, 0], actions)
        error = (imagined - states[:, 1:]).square().mean()
        x = states.flatten(0, 2)
        spread = F.relu(1 - (x.var(0) + 1e-4).sqrt()).mean()
        covariances = torch.cov(x.T)
        off_diagonal = (covariances.square().sum() - covariances.diagonal().square().sum()) / x.shape[1]
        guessed = self.inverse(states[:, :-1].flatten(0, 1), states[:, 1:].flatten(0, 1))
        guess_error = (guessed - actions.flatten(0, 1)).square().mean()
        return prediction * error + variance * spread + covariance * off_diagonal + inverse * guess_error

    def unroll(self, state, actions):
        """Imagine the latents (B T N D) after each action."""
        states = []
        for action in actions.unbind(1):
            state = self.dynamics(state, action)
            states.append(state)
        return torch.stack(states, dim=1)


@torch.no_grad()
def mppi(world, state, goal, start, noises, temperature):
    """Plan: average noisy copies of a plan (B H A), those of low cost with more weight, once for each noise (B S H A).

    The cost of a plan is the sum over its steps of the mean squared distance of latents (B N D) to the goal's.
    """
    plan = start
    for noise in noises:
        candidates = plan[:, None] + noise
        count = noise.shape[1]
        imagined = world.unroll(state.repeat_interleave(count, 0), candidates.flatten(0, 1))  # B·S H N D
        distance = imagined.unflatten(0, (len(state), count)) - goal[:, None, None]
        cost = distance.square().mean((3, 4)).sum(2)  # B S
        weight = (-(cost - cost.amin(1, keepdim=True)) / temperature).softmax(1)
        plan = (weight[:, :, None, None] * candidates).sum(1)
    return plan


def main():
    """Train ten steps on noise, and plan, to show that the file runs."""
    torch.manual_seed(0)
    world = WorldModel(channels=2, patch=3, side=5, action_dim=2)
    optimizer = torch.optim.AdamW(world.parameters(), lr=2e-3)
    frames, actions = torch.rand(8, 5, 2, 15, 15), torch.randn(8, 4, 2)
    for step in range(1, 11):
        loss = world.loss(frames, actions)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"step {step}  loss {loss.item():.4f}")
    with torch.no_grad():
        state, goal = world.encoder(frames[:2, 0]), world.encoder(frames[:2, 4])
    plan = mppi(world, state, goal, torch.zeros(2, 4, 2), [torch.randn(2, 16, 4, 2) for _ in range(3)], 0.5)
    print(f"first action of each plan: {plan[:, 0].tolist()}")


if __name__ == "__main__":
    main()
