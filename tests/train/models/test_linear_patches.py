from typing import Any

import torch
from torch import nn

from vlm_train.models.linear_patches import use_linear_patches


class TinyPatchEmbed(nn.Module):
    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.proj = nn.Conv3d(3, 8, kernel_size=(2, 4, 4), **settings)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        return self.proj(patches.view(-1, 3, 2, 4, 4)).view(len(patches), -1)


def test_the_product_equals_the_convolution_and_its_gradients_and_keeps_the_names() -> None:
    patches = torch.randn(10, 3 * 2 * 4 * 4)
    module = TinyPatchEmbed(stride=(2, 4, 4))
    before = {name: parameter.shape for name, parameter in module.named_parameters()}
    convolved = module(patches)
    expected = torch.autograd.grad(convolved.pow(2).sum(), list(module.parameters()))
    use_linear_patches(module)
    multiplied = module(patches)
    found = torch.autograd.grad(multiplied.pow(2).sum(), list(module.parameters()))
    assert "convolution" not in str(multiplied.grad_fn).lower()
    assert (multiplied - convolved).abs().max() <= 1e-5
    assert all((a - b).norm() / b.norm() <= 1e-5 for a, b in zip(found, expected, strict=True))
    assert {name: parameter.shape for name, parameter in module.named_parameters()} == before


def test_a_convolution_whose_patches_overlap_stays_one() -> None:
    module = TinyPatchEmbed(stride=(2, 2, 2), padding=(0, 1, 1))
    use_linear_patches(module)
    assert "forward" not in vars(module)


def test_the_towers_of_qwen_multiply(tiny: Any) -> None:
    changed = [
        name for name, one in tiny.load().named_modules() if name.endswith("patch_embed") and "forward" in vars(one)
    ]
    assert bool(changed) == tiny.family.model_type.startswith("qwen3_vl")
