"""What the keys of FSDP do, seen in the collective calls of a step of two micro-batches: how often, in which type."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.train.models.rank_steps import Found, Way, write_plan

from vlm_train.local_ranks import run_locally
from vlm_train.shard_parameters import LAYERS

ROOT = Path(__file__).parents[3]
PROGRAM = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from tests.train.models.rank_steps import main; main()"
IMAGE, _, _, TEXT = range(4)
STEP = (((((IMAGE,),), ((TEXT,),)), (((TEXT,),), ((TEXT,),))),)
HALF = "train.param_dtype=bfloat16"
WAYS = {
    "default": (),
    "always": ("train.fsdp_reshard_after_forward=always",),
    "never": ("train.fsdp_reshard_after_forward=never",),
    "copies": ("policy.parallelism.dp_replicate_size=2",),
    "half": (HALF,),
    "half, reduced in half": (HALF, "train.fsdp_reduce_dtype=bfloat16"),
    "all half": (HALF, "train.master_dtype=bfloat16"),
}
GATHER, REDUCE, ADD = "allgather_base", "reduce_scatter_base", "allreduce"


@pytest.fixture(scope="module")
def found(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Found]:
    if tiny.family.model_type != "qwen3_vl":
        pytest.skip("the calls do not depend on the family")
    folder = tmp_path_factory.mktemp("traffic")
    ways = [Way(name, STEP, settings, watched=True) for name, settings in WAYS.items()]
    write_plan(folder, tiny.folder, [tiny.encode(number) for number in range(4)], ways)
    assert run_locally([sys.executable, "-c", PROGRAM, str(folder)], num_processes=2) == 0
    return {name: one[0] for name, one in torch.load(folder / "found.pt", weights_only=False).items()}


def num_layers(tiny: Any) -> int:
    return sum(type(one).__name__ in LAYERS for one in tiny.load().modules())


def calls(found: Found, operator: str) -> dict[str, int]:
    """By type."""
    return {kind: number for (name, kind), number in found.traffic.items() if name == operator}


@pytest.mark.slow
def test_parameters_are_gathered_as_often_as_the_reshard_policy_says(tiny: Any, found: dict[str, Found]) -> None:
    layers = num_layers(tiny)
    root = 1
    assert calls(found["default"], GATHER) == {"float32": 2 * (2 * layers + root)}  # the root group stays
    assert calls(found["always"], GATHER) == {"float32": 2 * (2 * layers + 2 * root)}
    assert calls(found["never"], GATHER) == {"float32": layers + root}


@pytest.mark.slow
def test_gradients_are_reduced_once_a_step_where_parameters_stay_whole(tiny: Any, found: dict[str, Found]) -> None:
    groups = num_layers(tiny) + 1
    assert calls(found["default"], REDUCE) == {"float32": 2 * groups}
    assert calls(found["never"], REDUCE) == {"float32": groups}
    assert calls(found["copies"], ADD)["float32"] == groups  # sums over copies wait for the last micro-batch


@pytest.mark.slow
def test_parameters_and_gradients_travel_and_stay_in_the_types_that_the_toml_names(found: dict[str, Found]) -> None:
    def types(name: str) -> tuple[list[str], list[str], list[str]]:
        one = found[name]
        return list(calls(one, GATHER)), list(calls(one, REDUCE)), sorted(one.types)

    assert types("default") == (["float32"], ["float32"], ["float32"])
    assert types("half") == (["bfloat16"], ["float32"], ["float32"])
    assert types("half, reduced in half") == (["bfloat16"], ["bfloat16"], ["float32"])
    assert types("all half") == (["bfloat16"], ["bfloat16"], ["bfloat16"])
    exact = found["default"].loss
    assert 0 < abs(found["half"].loss - exact) < 0.02 * exact
