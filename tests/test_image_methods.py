"""Methods of images: what each promises in its paper, and what every method promises."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from openjepa.core.errors import UserError
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Batch, Keep, Layout, gather
from openjepa.data.loader import Steps
from openjepa.interop.export import check_representable
from openjepa.interop.pretrained import check_patch_tokens, load_run, untrained_encoder
from openjepa.interop.programs import write_torch_program
from openjepa.masking.multiblock import MultiBlock
from openjepa.masking.random import Random
from openjepa.masking.windows import Windows
from openjepa.methods.cnn_jepa import CNNJEPA
from openjepa.methods.cnn_vicreg import CNNVICReg
from openjepa.methods.dmt_jepa import DMTJEPA
from openjepa.methods.iwm import IWM
from openjepa.methods.latent_jepa import LatentJEPA
from openjepa.methods.learned_masks import LearnedMasks
from openjepa.methods.lejepa import LeJEPA
from openjepa.methods.mae import MAE
from openjepa.methods.s_jea import SJEA
from openjepa.methods.salt import SALT
from openjepa.methods.sar_jepa import SARJEPA
from openjepa.modalities.audio import Audio
from openjepa.nn.aggregation import AggregationHead, grid_neighbors, most_similar
from openjepa.nn.expander import ExpanderConfig
from openjepa.nn.gradients import log_ratio_gradient
from openjepa.nn.latent import LatentConfig
from openjepa.nn.mask_network import draw_order, log_probability
from openjepa.nn.regularizers import vicreg_terms
from openjepa.nn.sparse_convnet import ConvPredictorConfig, SparseConvNetConfig
from openjepa.nn.vit import ViTConfig
from openjepa.recipes.registry import make_recipe
from openjepa.training.config import Pretrain, from_json, load_config, to_json
from openjepa.training.optim import Optim, build_optimizer
from openjepa.training.run import pretrain
from openjepa.training.run_folder import load_method
from openjepa.training.stages import Stages, run_stages
from openjepa.training.step import micro_batches, train_step
from openjepa.training.teachers import attach_teachers
from tests.conftest import CPU, MODALITIES, SMALL, SMALL_PREDICTOR, slow

DATA = MODALITIES["image"]
CONV = CNNJEPA(encoder=SparseConvNetConfig(32, (1, 1, 2), 3), predictor=ConvPredictorConfig(1, 3))
METHODS = {
    "iwm": (IWM(SMALL, SMALL_PREDICTOR), Random()),
    "iwm, sequence": (IWM(SMALL, SMALL_PREDICTOR, conditioning="sequence"), Random(masks_per_sample=2)),
    "dmt-jepa": (DMTJEPA(SMALL, SMALL_PREDICTOR, target_transforms=("standardize",)), MultiBlock()),
    "sar-jepa": (SARJEPA(SMALL, SMALL_PREDICTOR, radii=(1, 2)), Windows(size=4)),
    "sar-jepa, masked": (SARJEPA(SMALL, SMALL_PREDICTOR, radii=(1, 2), encoder_input="masked"), Windows(size=4)),
    "cnn-jepa": (CONV, MultiBlock()),
    "cnn-vicreg": (CNNVICReg(SparseConvNetConfig(32, (1, 1, 2), 3), ExpanderConfig(64, 2)), Random()),
    "learned-masks": (LearnedMasks(SMALL, SMALL_PREDICTOR), Random()),
    "latent-jepa": (LatentJEPA(SMALL, SMALL_PREDICTOR, latent=LatentConfig(size=2)), Random(masks_per_sample=2)),
    "lejepa": (LeJEPA(SMALL, ExpanderConfig(64, 2, 8), views=3), Random()),
    "s-jea": (SJEA(SMALL, level2=ViTConfig(32, 1, 2)), Random()),
}


VARIANTS = ("iwm, sequence", "sar-jepa, masked")  # their quicker relatives cover most of what they do
every_method = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=slow) if name in VARIANTS else name for name in METHODS]
)


def prepare(name: str, size: int = 16, seed: int = 0):
    """Return the networks of a method and a batch with its masks."""
    config, masks = METHODS[name]
    net = config.build(DATA, seed)
    steps = Steps(
        DATA.synthetic(64, 0), masks, DATA.layout, batch_size=size, total_steps=9, seed=0, num_views=net.num_views
    )
    batch = steps[0].batch
    return net, batch._replace(masks=net.masks(batch))


@every_method
def test_micro_batches_give_the_gradient_of_the_whole_batch(name):
    net, batch = prepare(name)
    if net.config.whole_batch:
        pytest.skip("the loss compares the samples of a batch, so runs with --accumulate are refused")
    targets, gradients = net.targets(batch), []
    for parts in (1, 4):
        net.zero_grad()
        for micro in micro_batches(batch, targets, parts):
            (net(micro.batch, micro.targets).loss / parts).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None]))
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-6, rtol=1e-3)


@every_method
def test_the_loss_falls_and_every_weight_learns(name):
    net, batch = prepare(name)
    config, losses = Optim(lr=3e-3, ema_momentum=1.0), []
    optimizer = build_optimizer(net, config)
    before = {each: p.clone() for each, p in net.named_parameters() if p.requires_grad}
    for number in range(60):
        losses.append(train_step(net, optimizer, batch, config.at(number, 60), CPU, clip=1.0).output.loss.item())
        if number > 4 and losses[-1] < 0.9 * losses[0]:
            break
    assert losses[-1] < 0.9 * losses[0]
    assert all(not torch.equal(p, before[each]) for each, p in net.named_parameters() if p.requires_grad)


@every_method
def test_every_encoder_can_be_built_alone_and_loaded(name):
    net, batch = prepare(name)
    tokens = DATA.tokens(batch.views[0])
    for which, encoder in net.encoders().items():
        alone = METHODS[name][0].build_encoder(DATA, which)
        alone.load_state_dict(encoder.state_dict())
        assert torch.equal(alone(tokens)[0].x, encoder(tokens)[0].x)


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("cnn-vicreg", "lejepa", "s-jea")])
def test_hidden_pixels_change_nothing_that_the_encoder_gives(name):
    """The leakage test: other pixels in hidden patches leave the features of the context bit for bit the same."""
    net, batch = prepare(name)
    mask, tokens = batch.masks[0], DATA.tokens(batch.views[0])
    visible = torch.zeros(tokens.x.shape[:2], dtype=torch.bool).scatter_(1, mask.context, True)
    noise = torch.randn(tokens.x.shape, generator=torch.Generator().manual_seed(0))
    changed = tokens._replace(x=torch.where(visible[..., None], tokens.x, noise))
    one, other = (net.context_encoder(each, mask.keep_context())[0].x for each in (tokens, changed))
    assert torch.equal(one, other) and not torch.equal(tokens.x, changed.x)


# joint embedding


def test_joint_embedding_of_sound_compares_the_rows_of_its_spectrograms():
    """VICReg's formula, written out on features that are pooled over time alone."""
    data = Audio(rate=4000, frames=16, bands=16, patch=4, mean=(-40.0,), std=(20.0,), pooling="row-max")
    config = CNNVICReg(SparseConvNetConfig(32, (1, 1, 2), 3), ExpanderConfig(24, 2))
    net = config.build(data, 0)
    views = tuple(torch.randn(2, 8, 1, data.samples, generator=torch.Generator().manual_seed(0)))
    output = net(Batch(views, torch.arange(8)), None)
    z = []
    for view in views:
        rows = net.context_encoder(data.tokens(view))[0].x.unflatten(1, (4, 4)).amax(2)
        z.append(net.predictor(rows.flatten(1)))
    loss = 25 * (z[0] - z[1]).square().mean()
    for each in z:
        centered = each - each.mean(0)
        covariance = centered.T @ centered / 7
        hinge = (1 - (centered.square().sum(0) / 7 + 1e-4).sqrt()).clamp(min=0).mean()
        loss = loss + 25 * hinge / 2
        loss = loss + (covariance.square().sum() - covariance.diagonal().square().sum()) / 24
    torch.testing.assert_close(output.loss, loss, rtol=1e-4, atol=1e-5)


# CNN-JEPA


def test_hidden_cells_are_0_before_every_block_of_convolutions():
    net, batch = prepare("cnn-jepa")
    encoder, seen = net.context_encoder, []
    for stage in encoder.stages:
        stage[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    encoder(DATA.tokens(batch.views[0]), batch.masks[0].keep_context())
    rows, columns = DATA.grid
    visible = torch.zeros(len(batch.index), rows * columns).scatter_(1, batch.masks[0].context, 1.0)
    for x in seen:
        fine = F.interpolate(visible.view(-1, 1, rows, columns), x.shape[1:3])[:, 0].bool()
        assert not x[~fine].any() and x[fine].any()
    assert len(seen) == 3


def test_a_convolutional_encoder_sees_across_patches_and_sizes():
    """A visible patch changes the features of its visible neighbor, and a larger image has more features."""
    encoder = CONV.build(DATA).context_encoder
    views = DATA.synthetic(2, 0).read(torch.arange(2), None).views[0]
    tokens = DATA.tokens(views)
    changed = tokens._replace(x=tokens.x.clone())
    changed.x[:, 0] += 1
    assert (encoder(tokens)[0].x[:, 1] - encoder(changed)[0].x[:, 1]).abs().max() > 1e-3
    larger = DATA.tokens(torch.nn.functional.interpolate(views, scale_factor=2))
    assert encoder(larger)[0].x.shape == (2, 256, 32)


def test_padding_in_the_context_does_not_change_convolutional_predictions():
    net, batch = prepare("cnn-jepa")
    mask, tokens = batch.masks[0], DATA.tokens(batch.views[0])
    valid = torch.ones_like(mask.context, dtype=torch.bool)
    valid[:, -3:] = False
    where = gather(tokens.pos, mask.target)
    padded, short = Keep(mask.context[:, None], valid[:, None]), Keep(mask.context[:, None, :-3])
    one, other = (net.predictor(net.context_encoder(tokens, keep)[0], where) for keep in (padded, short))
    torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_the_convolutional_predictor_sees_the_context_alone():
    """Its input is the mask token at every hidden patch, so that all blocks can be predicted at once."""
    net, batch = prepare("cnn-jepa")
    mask, tokens = batch.masks[0], DATA.tokens(batch.views[0])
    (context,) = net.context_encoder(tokens, mask.keep_context())
    where = gather(tokens.pos, mask.target)
    torch.testing.assert_close(net.predictor(context, where)[:, :1], net.predictor(context, where[:, :1]))


@pytest.mark.parametrize("encoder", [SparseConvNetConfig(32, (1, 1)), SparseConvNetConfig(30, (1, 1, 1))])
def test_convolutional_stages_that_do_not_fit_the_patches_are_refused(encoder):
    with pytest.raises(UserError, match=r"--method\.encoder"):
        replace(CONV, encoder=encoder).check(DATA, MultiBlock())


@slow
def test_a_convolutional_encoder_is_exported_at_its_own_size(tmp_path):
    settings = Pretrain(DATA, CONV)
    encoder = untrained_encoder(settings)
    assert write_torch_program(encoder, tmp_path) < 1e-5
    with pytest.raises(UserError, match="has no SparseConvNet networks: try --format onnx"):
        check_representable(encoder, "Hugging Face's ijepa")


# DMT-JEPA


def test_neighborhoods_end_at_the_border_and_never_hold_the_token_itself():
    index, valid = (each[0] for each in grid_neighbors(3, 4))
    for token in range(12):
        row, column = divmod(token, 4)
        near = {
            (y * 4 + x)
            for y in range(max(0, row - 1), min(3, row + 2))
            for x in range(max(0, column - 1), min(4, column + 2))
        } - {token}
        assert set(index[token][valid[token]].tolist()) == near


def test_the_most_similar_neighbors_are_those_of_plain_sorting():
    x = torch.randn(2, 12, 5, generator=torch.Generator().manual_seed(0))
    index, valid = most_similar(x, grid_neighbors(3, 4), 4)
    near, exists = (each[0] for each in grid_neighbors(3, 4))
    for sample in range(2):
        for token in range(12):
            options = near[token][exists[token]].tolist()
            ranked = sorted(options, key=lambda each: -float(F.cosine_similarity(x[sample, token], x[sample, each], 0)))
            assert set(index[sample, token][valid[sample, token]].tolist()) == set(ranked[:4])


def test_aggregation_is_class_attention_written_out():
    """Each block: the query attends to itself and its neighbors, then an MLP; with 8 neighbors, their order is free."""
    torch.manual_seed(0)
    head, x = AggregationHead(8, 2, depth=2), torch.randn(1, 9, 8)
    neighbors = most_similar(x, grid_neighbors(3, 3), 8)
    result = head.aggregate_neighbors(x, neighbors)
    for token in range(9):
        q = x[0].mean(0)
        near = x[0][neighbors.index[0, token][neighbors.valid[0, token]]]
        for block in head.blocks:
            both = block.norm1(torch.cat([q[None], near]))
            query, key, value = block.query(both[:1]), block.key(both), block.value(both)
            heads = []
            for part in (slice(0, 4), slice(4, 8)):
                weights = (query[:, part] @ key[:, part].T / 2).softmax(-1)
                heads.append(weights @ value[:, part])
            q = q + block.proj(torch.cat(heads, -1))[0]
            q = q + block.mlp(block.norm2(q)[None, None])[0, 0]
        torch.testing.assert_close(result[0, token], head.norm(q), atol=1e-5, rtol=1e-4)


def test_the_head_of_the_targets_is_the_ema_of_the_head_of_the_context():
    net, _ = prepare("dmt-jepa")
    with torch.no_grad():
        for p in net.head.parameters():
            p.add_(1.0)
    net.after_step(momentum=0.0)
    assert all(torch.equal(a, b) for a, b in zip(net.head.parameters(), net.target_head.parameters(), strict=True))


def test_targets_come_from_the_ema_of_the_head_alone():
    net, batch = prepare("dmt-jepa")
    before = net.targets(batch).x
    with torch.no_grad():
        for p in net.head.parameters():
            p.mul_(2.0)
    assert torch.equal(net.targets(batch).x, before)
    with torch.no_grad():
        for p in net.target_head.parameters():
            p.mul_(2.0)
    assert not torch.allclose(net.targets(batch).x, before)


# SAR-JEPA


def image(values: torch.Tensor) -> torch.Tensor:
    return values[None, None]


def test_the_log_ratio_gradient_ignores_the_scale_of_intensities_and_flat_areas():
    x = image(torch.rand(16, 16, generator=torch.Generator().manual_seed(0)) + 0.1)
    for radius in (1, 3):
        one, other = (log_ratio_gradient(scale * x, radius, offset=0.0) for scale in (1.0, 7.0))
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    assert log_ratio_gradient(torch.full_like(x, 0.3), 2).abs().max() < 1e-5


def test_the_log_ratio_gradient_of_an_edge_is_its_closed_form():
    """Left of an edge from a to b, the window's left half has mean a, its right half one part a and r parts b."""
    a, b, radius = 1.0, 4.0, 2
    x = image(torch.cat([torch.full((16, 8), a), torch.full((16, 8), b)], 1))
    found = log_ratio_gradient(x, radius, offset=0.0)[0, 0]
    expected = np.log((a + radius * b) / ((radius + 1) * a))
    np.testing.assert_allclose(found[8, 7], expected, rtol=1e-5)
    np.testing.assert_allclose(found[8, 8], np.log((radius + 1) * b / (radius * a + b)), rtol=1e-5)
    assert found[:, 3].abs().max() < 1e-6


def test_speckle_changes_the_gradient_less_at_larger_scales():
    generator = torch.Generator().manual_seed(0)
    flat = torch.full((1, 1, 64, 64), 0.5)
    speckled = flat * -torch.rand(flat.shape, generator=generator).log()  # one look: exponential intensities
    small, large = (log_ratio_gradient(speckled, radius).mean() for radius in (1, 5))
    assert large < 0.5 * small


def test_windows_are_squares_with_a_fixed_share_of_hidden_tokens():
    masks = Windows(size=5, mask_ratio=0.8)(Layout.grid(8, 8), None, None, CounterRNG.of(0, 0, np.arange(64)), 0.0)
    assert len(masks) == 4
    corners = set()
    for mask in masks:
        cells = torch.cat([mask.context, mask.target[:, 0]], 1).sort(1).values
        assert mask.context.shape == (64, 5) and mask.target.shape == (64, 1, 20)
        rows, columns = cells // 8, cells % 8
        assert (
            (rows.max(1).values - rows.min(1).values == 4) & (columns.max(1).values - columns.min(1).values == 4)
        ).all()
        assert all(len(set(row.tolist())) == 25 for row in cells)
        corners |= set(cells[:, 0].tolist())
    assert corners == {8 * row + column for row in range(4) for column in range(4)}  # every position


# S-JEA, LeJEPA


def test_gradients_of_level_2_reach_level_1_unless_they_are_detached():
    """Detached, level 1 learns from its own loss alone, whose terms are those of VICReg."""
    gradients = []
    for detach in (True, False):
        net, batch = replace(METHODS["s-jea"][0], detach=detach).build(DATA), prepare("s-jea")[1]
        net(batch, None).loss.backward()
        gradients.append(net.context_encoder.norm.weight.grad.clone())
    net.zero_grad()
    terms = vicreg_terms(*(net.predictor(net.encode(batch, number)) for number in range(2)))
    (25 * terms.invariance + 25 * terms.variance + terms.covariance).backward()
    alone = net.context_encoder.norm.weight.grad
    torch.testing.assert_close(gradients[0], alone, atol=1e-5, rtol=1e-4)
    assert (gradients[1] - alone).norm() > 0.01 * alone.norm()


def test_lejepa_is_its_equation():
    net, batch = prepare("lejepa")
    z = torch.stack([net.predictor(net.context_encoder(DATA.tokens(view))[0].x.mean(1)) for view in batch.views])
    squared = torch.stack([(view - z.mean(0)).square() for view in z]).mean()
    normal = torch.stack([net.distance_to_normal(view, batch) for view in z]).mean()
    expected = 0.98 * squared + 0.02 * len(batch.index) * normal
    torch.testing.assert_close(net(batch, None).loss, expected, atol=1e-5, rtol=1e-4)


# Learned masks


def test_a_mask_network_learns_to_hide_what_is_rewarded():
    """With a reward for tokens 0 to 3 of 16, these are hidden nearly always after some policy gradient steps."""
    scores = torch.zeros(1, 16, requires_grad=True)
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        hidden = draw_order(scores.detach().expand(32, -1), torch.rand(32, 16, generator=generator))[:, :4]
        reward = (hidden < 4).float()
        loss = -((reward - reward.mean()) * log_probability(scores.expand(32, -1), hidden)).mean()
        (gradient,) = torch.autograd.grad(loss, scores)
        scores = (scores - 5 * gradient).detach().requires_grad_(True)
    hidden = draw_order(scores.detach().expand(256, -1), torch.rand(256, 16, generator=generator))[:, :4]
    assert (hidden < 4).float().mean() > 0.9


def test_a_step_raises_the_scores_of_tokens_that_are_predicted_worst():
    """The network's gradient is that of the reward: the loss of a hidden token above the mean of its image."""
    net, batch = prepare("learned-masks")
    targets = net.targets(batch)
    target = batch.masks[0].target[:, 0]
    worst = target[:, :1]
    x = targets.x.scatter(1, worst[..., None].expand(-1, -1, 48), 50.0)  # one token that nobody can predict
    net.zero_grad()
    net(batch, targets._replace(x=x)).loss.backward()
    before = net.scores(batch).detach()
    with torch.no_grad():
        for p in net.mask_network.parameters():
            if p.grad is not None:
                p.sub_(0.1 * p.grad)
    change = net.scores(batch).detach() - before
    change = change - change.mean(1, keepdim=True)
    assert change.gather(1, worst).mean() > 0


def test_the_mask_network_changes_no_gradient_of_the_encoder():
    config = METHODS["learned-masks"][0]
    gradients = []
    for weight in (0.0, 5.0):
        net, batch = replace(config, mask_weight=weight).build(DATA), prepare("learned-masks")[1]
        net(batch, net.targets(batch)).loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in net.context_encoder.parameters()]))
    assert torch.equal(gradients[0], gradients[1])


def test_masks_of_a_sample_depend_on_the_seed_and_its_index_alone():
    net, batch = prepare("learned-masks")
    half = Batch((batch.views[0][8:],), batch.index[8:])
    assert torch.equal(net.masks(half)[0].target, batch.masks[0].target[8:])
    later = batch._replace(index=batch.index + 64)
    assert not torch.equal(net.masks(later)[0].target, batch.masks[0].target)


# SALT, and all recipes


def test_salt_predicts_its_teacher_and_keeps_it_as_it_is(photos, tmp_path):
    """A recipe of two stages: the targets of the second are the normalized features of the first stage's encoder."""
    data = replace(DATA, root=(str(photos),))
    first = Pretrain(data, MAE(SMALL, SMALL_PREDICTOR), Random(), steps=2, batch_size=16)
    second = replace(first, method=SALT(SMALL, SMALL_PREDICTOR, teacher="stage-1"))
    last = run_stages(Stages((first, second)), tmp_path / "salt", pretrain)
    settings = load_config(last)
    net = load_method(last, settings)
    attach_teachers(settings, net, torch.device("cpu"))
    batch = prepare("iwm")[1]
    teacher = load_run(tmp_path / "salt" / "stage-1")
    features = teacher.network(teacher.data.tokens(batch.views[0]))[0].x
    torch.testing.assert_close(net.targets(batch).x, F.layer_norm(features, features.shape[-1:]))
    assert load_run(last).name == "stage-2"


def test_a_teacher_of_another_width_is_refused(photos, tmp_path):
    data = replace(DATA, root=(str(photos),))
    pretrain(Pretrain(data, MAE(SMALL, SMALL_PREDICTOR), Random(), steps=1, batch_size=8, out=tmp_path / "teacher"))
    student = SALT(replace(SMALL, dim=32), SMALL_PREDICTOR, teacher=str(tmp_path / "teacher"))
    with pytest.raises(UserError, match=r"try --method\.encoder\.dim 48"):
        pretrain(Pretrain(data, student, Random(), steps=1, batch_size=8, out=tmp_path / "student"))


RECIPES = ("iwm-equivariant", "iwm-invariant", "dmt-cifar10", "cnn-cifar10", "lejepa-cifar10", "s-jea-cifar10")
RECIPES += ("learned-masks-cifar10", "salt-cifar10", "sar-small")


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_of_image_methods_fit_their_data_and_count_their_work(name):
    recipe = make_recipe(name)
    for settings in recipe.runs if isinstance(recipe, Stages) else (recipe,):
        settings.method.check(settings.data, settings.masks)
        assert settings.masks.shapes(settings.data.layout)
        cost = settings.method.cost(settings.data, settings.masks.shapes(settings.data.layout))
        assert cost is not None and cost.total > 0 and settings.method.describe()
        assert from_json(to_json(settings)).method == settings.method


def test_level_2_of_s_jea_encodes_an_image_alone_as_in_a_batch_also_after_training(photos, tmp_path):
    method = SJEA(SMALL, level2=ViTConfig(32, 1, 2))
    run = Pretrain(replace(DATA, root=(str(photos),)), method, Random(), steps=3, batch_size=16, out=tmp_path / "run")
    pretrain(run)
    image = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    for folder in (tmp_path / "run", tmp_path / "run" / "export"):
        level2 = load_run(folder, "level2")
        together = level2.encode(image)
        torch.testing.assert_close(level2.encode(image[:1]).last, together.last[:1], atol=1e-5, rtol=1e-4)
        norm = level2.network.expander.norms[0]
        assert norm.running_mean.abs().max() > 0  # measured in training
    with pytest.raises(UserError, match="16 tokens for 64 patches"):
        check_patch_tokens("level 2", level2.encode(image).patches, 64)
    assert write_torch_program(level2, tmp_path) < 1e-5
