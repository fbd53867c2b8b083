"""The encoder against Hugging Face's IJepaModel (transformers 5), with the same weights."""

import pytest
import torch

from openjepa.modalities.image import Image
from openjepa.nn.vit import ViT

transformers = pytest.importorskip("transformers", reason="the extra openjepa[hf] is not installed")


def state_for_encoder(hf_state: dict[str, torch.Tensor], depth: int) -> dict[str, torch.Tensor]:
    """Rename the weights of IJepaModel to those of our encoder."""
    state = {
        f"patch_embed.proj.{part}": hf_state[f"embeddings.patch_embeddings.projection.{part}"]
        for part in ("weight", "bias")
    }
    pairs = {
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
        "attn.proj": "attention.o_proj",
        "mlp.fc1": "mlp.fc1",
        "mlp.fc2": "mlp.fc2",
    }
    for block in range(depth):
        for part in ("weight", "bias"):
            for name, hf_name in pairs.items():
                state[f"blocks.{block}.{name}.{part}"] = hf_state[f"layers.{block}.{hf_name}.{part}"]
            split = [hf_state[f"layers.{block}.attention.{kind}_proj.{part}"] for kind in "qkv"]
            state[f"blocks.{block}.attn.qkv.{part}"] = torch.cat(split)
    return state | {f"norm.{part}": hf_state[f"layernorm.{part}"] for part in ("weight", "bias")}


@pytest.mark.parametrize("size", [(64, 64)])
def test_features_equal_hugging_faces(size):
    config = transformers.IJepaConfig(
        hidden_size=96, num_hidden_layers=3, num_attention_heads=4, intermediate_size=384, image_size=size[0],
        patch_size=8, layer_norm_eps=1e-6,
    )  # fmt: skip
    model = transformers.IJepaModel(config).eval()
    data = Image(size=size, patch=8, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    encoder = ViT(data.tokenizer(96), 96, 3, 4).eval()
    tokens = data.tokens(torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8))
    from openjepa.nn.positions import sincos

    with torch.no_grad():
        model.embeddings.position_embeddings.copy_(sincos(tokens.pos[:1], 96))
        for parameter in model.layernorm.parameters():
            parameter.normal_()
        encoder.load_state_dict(state_for_encoder(model.state_dict(), 3))
        pixels = tokens.x.view(2, 8, 8, 3, 8, 8).permute(0, 3, 1, 4, 2, 5).reshape(2, 3, *size)
        expected = model(pixels).last_hidden_state
        (features,) = encoder(tokens)
    torch.testing.assert_close(features.x, expected, atol=1e-5, rtol=0)
