"""Where gradients go does not depend on a rank's media: FSDP's calls in the backward pass follow them.

What a layer takes and gives needs a gradient, or does not, for pictures, films and text alike, whatever trains.
"""

from typing import Any

import torch

from vlm_train.models.nemotron_omni import freeze_unused
from vlm_train.shard_parameters import LAYERS

IMAGE, VIDEO, TEXT = 0, 2, 3


def test_layers_of_text_need_the_same_gradients_whatever_the_media(tiny: Any) -> None:
    module = tiny.load().train()
    freeze_unused(module)
    batches = {number: tiny.batch(number) for number in (IMAGE, VIDEO, TEXT)}
    parameters = {name: one for name, one in module.named_parameters() if one.requires_grad}
    for part in sorted({part_of(name) for name in parameters}):
        for name, one in parameters.items():
            one.requires_grad_(part_of(name) == part)
        found = {number: needs_gradients(tiny, module, batch) for number, batch in batches.items()}
        assert found[IMAGE] == found[VIDEO] == found[TEXT], part


def part_of(name: str) -> str:
    """What may train alone: an embedding, a merger, one layer of the tower or of text."""
    numbered = [place for place, one in enumerate(name.split(".")) if one.isdigit()]
    return ".".join(name.split(".")[: numbered[0] + 1 if numbered else 3])


def needs_gradients(tiny: Any, module: torch.nn.Module, batch: Any) -> list[tuple[bool, bool]]:
    """(what it takes, what it gives) of each layer of text, in the order of their calls."""
    found: list[tuple[bool, bool]] = []

    def note(_layer: Any, given: Any, named: Any, output: Any) -> None:
        found.append((any_needs((given, named)), any_needs(output)))

    layers = [one for one in module.modules() if type(one).__name__ in LAYERS]
    handles = [layer.register_forward_hook(note, with_kwargs=True) for layer in layers]
    tiny.family.hidden_states(module, batch)
    for handle in handles:
        handle.remove()
    assert len(found) == len(layers) > 1
    return found


def any_needs(values: Any) -> bool:
    leaves = torch.utils._pytree.tree_leaves(values)
    return any(isinstance(one, torch.Tensor) and one.requires_grad for one in leaves)
