"""How many ranks share what: numbers that cannot work are refused before anything loads, with those that would."""

import json
from pathlib import Path

import pytest

from vlm_catalogs.config import Config, load_config
from vlm_catalogs.errors import ConfigError
from vlm_train.load import refuse_without_effect
from vlm_train.models import liger
from vlm_train.ranks import ranks_of

NEMOTRON = {"model_type": "nemotron_h_omni", "text_config": {"n_routed_experts": 6}}
MOE = {"model_type": "qwen3_vl_moe", "text_config": {"num_local_experts": 4}}
DENSE = {"model_type": "qwen3_vl", "text_config": {}}


def config_of(folder: Path, model: dict[str, object], *settings: str) -> Config:
    """A TOML over a folder that holds a config.json and no weights."""
    (folder / "config.json").write_text(json.dumps(model))
    (folder / "run.toml").write_text(f'[policy]\nmodel_name_or_path = "{folder}"\n')
    return load_config(folder / "run.toml", overrides=[f"policy.parallelism.{one}" for one in settings])


def test_experts_are_shared_out_among_the_ranks_of_a_copy(tmp_path: Path) -> None:
    config = config_of(tmp_path, MOE, "dp_replicate_size=2", "ep_size=4")
    ranks = ranks_of(config, {"WORLD_SIZE": "8", "RANK": "3"})
    assert (ranks.replicate, ranks.shard, ranks.expert) == (2, 4, 4)


def test_tensor_parallelism_of_nemotron_is_read_as_experts_and_multiplies_the_ranks(tmp_path: Path) -> None:
    config = config_of(tmp_path, NEMOTRON, "dp_shard_size=4", "tp_size=2")
    ranks = ranks_of(config, {"WORLD_SIZE": "8"})
    assert (ranks.replicate, ranks.shard, ranks.expert) == (1, 8, 2)


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        (MOE, ["ep_size=3"], "3 does not divide 8 ranks of one copy of the parameters and 4 experts; 1, 2, 4 would do"),
        (MOE, ["dp_replicate_size=4", "ep_size=4"], "4 does not divide 2 ranks of one copy"),
        (NEMOTRON, ["ep_size=4"], "6 experts; 1, 2 would do"),
        (NEMOTRON, ["ep_size=2", "tp_size=4"], "tp_size and ep_size are the same number"),
        (MOE, ["tp_size=2"], "tensor parallelism is not built"),
        (DENSE, ["ep_size=2"], "has no experts to share out"),
        (DENSE, ["dp_replicate_size=3"], "dp_replicate_size 3 x dp_shard_size -1 is not the number of ranks, 8"),
    ],
)
def test_sizes_that_cannot_work_are_refused_before_anything_loads(
    tmp_path: Path, model: dict[str, object], settings: list[str], message: str
) -> None:
    with pytest.raises(ConfigError) as refusal:
        ranks_of(config_of(tmp_path, model, *settings), {"WORLD_SIZE": "8"})
    assert message in " ".join(str(refusal.value).split())


def test_liger_kernels_that_are_not_there_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="liger-kernel is not installed: pip install"):
        liger.refuse_liger("qwen3_vl", where="run.toml:3")
    with pytest.raises(ConfigError, match="none for nemotron_h_omni"):
        liger.refuse_liger("nemotron_h_omni", where="run.toml:3")


class Dense:
    model_type = "qwen3_vl"


def test_a_setting_for_experts_is_refused_on_a_model_without(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text('[policy]\nmodel_name_or_path = "Qwen/Qwen3-VL-2B"\naux_loss_coeff = 0.1\n')
    with pytest.raises(ConfigError, match=r"run\.toml:3: policy\.aux_loss_coeff: qwen3_vl has no routers"):
        refuse_without_effect(load_config(tmp_path / "run.toml"), Dense())  # type: ignore[arg-type]
