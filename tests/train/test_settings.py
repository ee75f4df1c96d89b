"""Keys of a TOML and what they change: those whose effect no run of a whole command shows."""

import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.train.small_shards import dataset_to_draw, make_mix
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy

from vlm_catalogs.config import Config, describe_mode, load_config
from vlm_catalogs.config.sections import LoraSection
from vlm_catalogs.errors import ConfigError, DataError
from vlm_train.attempt import set_determinism
from vlm_train.live_view import SHOWN, LiveView
from vlm_train.load import DTYPES, check_offload, optimizer_settings, precision, refuse_without_effect
from vlm_train.lora import add_adapters
from vlm_train.make_tiny import make_tiny
from vlm_train.models.pretrained import load_pretrained, read_config
from vlm_train.open_store import num_workers
from vlm_train.optimizer import build_optimizer, clip_gradients
from vlm_train.ranks import ALONE, Ranks
from vlm_train.run_checkpoints import save_is_due
from vlm_train.run_plan import RunPlan, order_settings, plan_run
from vlm_train.shard_parameters import WholeForward, precision_policy, shard_module
from vlm_train.start import rows_of_run
from vlm_train.step_stream import Place

GRADIENTS = (0.5, -2.0, 0.25)


@pytest.fixture
def load(tmp_path: Path) -> Any:
    path = tmp_path / "run.toml"
    path.write_text('[policy]\nmodel_name_or_path = "Qwen/Qwen3-VL-8B-Instruct"\n')
    return lambda *overrides: load_config(path, overrides=overrides)


def trained(config: Config) -> list[float]:
    """A weight of 1 after each of three steps with ``GRADIENTS``."""
    module = nn.Linear(1, 1, bias=False)
    nn.init.ones_(module.weight)
    optimizer = build_optimizer(module.named_parameters(), optimizer_settings(config))
    found = []
    for gradient in GRADIENTS:
        module.weight.grad = torch.full_like(module.weight, gradient)
        optimizer.step()
        found.append(module.weight.item())
    return found


def by_formula(*, lr: float, betas: tuple[float, float], eps: float, decay: float) -> list[float]:
    """AdamW (Loshchilov and Hutter, arXiv 1711.05101, algorithm 2) in plain numbers."""
    weight, first, second, found = 1.0, 0.0, 0.0, []
    for step, gradient in enumerate(GRADIENTS, start=1):
        first = betas[0] * first + (1 - betas[0]) * gradient
        second = betas[1] * second + (1 - betas[1]) * gradient**2
        moved = (first / (1 - betas[0] ** step)) / (math.sqrt(second / (1 - betas[1] ** step)) + eps)
        weight -= lr * moved + lr * decay * weight
        found.append(weight)
    return found


@pytest.mark.parametrize(
    ("settings", "numbers"),
    [
        ([], {}),
        (["train.optm_name='AdamW'", "train.optm_weight_decay=0.5"], {"decay": 0.5}),
        (["train.optm_betas=[0.5, 0.7]"], {"betas": (0.5, 0.7)}),
        (["train.epsilon=0.1"], {"eps": 0.1}),
        (["train.optm_lr=0.03"], {"lr": 0.03}),
    ],
)
@pytest.mark.parametrize("impl", ["fused", "foreach", "for-loop"])
def test_the_optimizer_is_adamw_with_the_numbers_of_the_toml(
    load: Any, settings: list[str], numbers: dict[str, Any], impl: str
) -> None:
    config = load("train.optm_lr=0.1", f"train.optm_impl='{impl}'", *settings)
    expected = by_formula(**{"lr": 0.1, "betas": (0.9, 0.999), "eps": 1e-6, "decay": 0.01, **numbers})
    assert trained(config) == pytest.approx(expected, rel=1e-5)
    built = build_optimizer(nn.Linear(1, 1).named_parameters(), optimizer_settings(config))
    assert (built.defaults["fused"], built.defaults["foreach"]) == (impl == "fused", impl == "foreach")


@pytest.mark.parametrize(("largest", "norm"), [(1.0, 1.0), (2.5, 2.5), (100.0, 5.0), (0.0, 5.0)])
def test_the_gradient_is_clipped_to_the_norm_of_the_toml(load: Any, largest: float, norm: float) -> None:
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([3.0, 4.0])
    clip_gradients(
        [parameter], max_norm=optimizer_settings(load(f"train.optm_grad_norm_clip={largest}")).grad_norm_clip
    )
    assert parameter.grad.norm().item() == pytest.approx(norm, rel=1e-5)


@pytest.fixture(scope="module")
def plan_of(tmp_path_factory: pytest.TempPathFactory) -> Any:
    mix = make_mix(tmp_path_factory.mktemp("mix"), {"pictures": (40, 100)})
    datasets = [dataset_to_draw(mix, "pictures", 42)]

    def plan(config: Config) -> RunPlan:
        return plan_run(config, datasets)

    return plan


def factors(plan: RunPlan) -> list[float]:
    return [plan.schedule.factor(step) for step in range(plan.total_steps)]


def test_warm_up_and_decay_follow_the_toml(load: Any, plan_of: Any) -> None:
    short = ["train.max_num_steps=10", "train.epoch=9"]
    flat = factors(plan_of(load(*short, "train.optm_warmup_steps=0")))
    assert flat == [1.0] * 10
    risen = factors(plan_of(load(*short, "train.optm_warmup_steps=4")))
    assert risen == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1, 1])
    assert factors(plan_of(load(*short, "train.optm_warmup_steps=0.4"))) == pytest.approx(risen)
    linear = [*short, "train.optm_warmup_steps=0", "train.optm_decay_type='linear'"]
    falling = factors(plan_of(load(*linear)))
    assert falling == sorted(falling, reverse=True) and falling[0] > falling[5] > falling[9] >= 0
    late = factors(plan_of(load(*linear, "train.optm_decay_ratio=0.2")))
    assert late[:8] == [1.0] * 8 and late[9] < 1
    floor = factors(plan_of(load(*linear, "train.optm_min_lr_factor=0.5")))
    assert floor == pytest.approx([0.5 + 0.5 * factor for factor in falling])
    shapes = {kind: factors(plan_of(load(*linear, f"train.optm_decay_type='{kind}'"))) for kind in ("cosine", "sqrt")}
    assert falling != shapes["cosine"] != shapes["sqrt"] != falling


def test_a_run_has_the_steps_of_its_epochs_batch_and_limit(load: Any, plan_of: Any) -> None:
    assert plan_of(load("train.train_batch_per_replica=8")).total_steps == 6
    assert plan_of(load("train.train_batch_per_replica=4", "train.epoch=2")).total_steps == 22
    assert plan_of(load("train.train_batch_per_replica=4", "train.max_num_steps=3")).total_steps == 3
    dropped = plan_of(load("train.train_batch_per_replica=8", "train.train_policy.dataloader_drop_last=true"))
    assert dropped.total_steps == 5
    policy = ["train.train_policy.dataloader_shuffle=false", "train.train_policy.dataloader_seed=7"]
    order = order_settings(load(*policy))
    assert (order.shuffle, order.seed) == (False, 7)
    assert plan_of(load("train.train_policy.mini_batch=4")).mini_batch == 4


def test_threads_that_encode_are_those_of_the_stream_or_of_the_data_loader(load: Any) -> None:
    assert num_workers(load("train.train_policy.dataloader_num_workers=3")) == 3
    assert num_workers(load("train.train_policy.dataloader_num_workers=3", "stream.num_workers=2")) == 2


def test_the_types_are_those_of_the_toml(load: Any) -> None:
    types = precision(load("train.param_dtype='bfloat16'", "train.master_dtype='float32'"))
    assert (types.compute, types.master) == (torch.bfloat16, torch.float32)
    with types.context(torch.device("cpu")):
        assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype == torch.bfloat16
    for name in ("float32", "bfloat16"):
        reduce = DTYPES[load(f"train.fsdp_reduce_dtype='{name}'").train.fsdp_reduce_dtype]
        policy = precision_policy(compute=types.compute, master=types.master, reduce=reduce)
        assert (policy.param_dtype, policy.reduce_dtype) == (torch.bfloat16, DTYPES[name])
    for key in ("param_dtype", "master_dtype", "fsdp_reduce_dtype"):
        with pytest.raises(ConfigError, match=f"train.{key}: float16 is not built yet"):
            precision(load(f"train.{key}='float16'"))


def test_offloading_is_asked_of_fsdp_on_cuda_alone_and_refused_where_it_wins_nothing(
    load: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As far as this goes without a GPU: parameters that torch takes to be on one, and what FSDP is asked for."""
    asked: list[Any] = []

    class Sharded(FSDPModule):
        set_force_sum_reduction_for_comms = set_gradient_divide_factor = lambda self, value: None

    def shard(module: Any, **settings: Any) -> None:
        asked.append((str(next(module.parameters()).device), type(settings["offload_policy"]).__name__))
        module.__class__ = type("Sharded", (Sharded, type(module)), {})

    monkeypatch.setattr("torch.distributed.fsdp.fully_shard", shard)
    monkeypatch.setattr("torch.distributed.fsdp.register_fsdp_forward_method", lambda module, name: None)
    monkeypatch.setattr(Ranks, "mesh", lambda self, device: None)
    two = Ranks(rank=0, size=2, local_rank=0, replicate=1, shard=2)
    config = load("train.fsdp_offload=true")
    for device in ("cpu", "cuda:0"):
        with FakeTensorMode():
            layer: Any = type("Qwen3VLTextDecoderLayer", (nn.Linear,), {})(2, 2, device=device)
        whole: Any = WholeForward(nn.Sequential(layer), SimpleNamespace())  # type: ignore[arg-type]
        shard_module(whole, ranks=two, train=config.train, precision=MixedPrecisionPolicy())
    assert asked == [("cpu", "OffloadPolicy")] * 2 + [("cuda:0", "CPUOffloadPolicy")] * 2

    check_offload(config, torch.device("cuda"), two)
    check_offload(load(), torch.device("cuda"), ALONE)
    assert "fsdp_offload" not in capsys.readouterr().err
    check_offload(config, torch.device("cpu"), ALONE)
    assert "train.fsdp_offload: there is no GPU here" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"train\.fsdp_offload: parameters are moved out by the ranks that share"):
        check_offload(config, torch.device("cuda"), ALONE)


@pytest.mark.parametrize("text", ["", "[train]\n", "[train\n", "train = 3\n"])
def test_a_damaged_config_of_a_run_is_named(load: Any, tmp_path: Path, text: str) -> None:
    run = tmp_path / "out"
    run.mkdir()
    (run / "fingerprint.json").write_text('{"fingerprint": {"rows per step": 8}}')
    (run / "config.toml").write_text(text)
    with pytest.raises(DataError, match=r"out/config\.toml: damaged: "):
        rows_of_run(load(f"train.output_dir='{run}'"), resume=True)


def test_checkpoints_fall_due_by_steps_or_by_epochs(load: Any) -> None:
    places = [Place(step=step, epoch=step // 3, epoch_step=step % 3) for step in range(1, 13)]

    def due(*settings: str) -> list[int]:
        config = load("train.ckpt.enable_checkpoint=true", *settings)
        return [place.step for place in places if save_is_due(config, place)]

    assert due("train.ckpt.save_freq=5") == [5, 10]
    assert due("train.ckpt.save_freq=5", "train.ckpt.save_freq_in_epoch=2") == [6, 12]
    assert not any(save_is_due(load("train.ckpt.save_freq=1"), place) for place in places)


def test_deterministic_asks_torch_for_it_and_seed_for_the_same_numbers(load: Any) -> None:
    try:
        set_determinism(load("train.deterministic=true", "train.seed=5"))
        assert torch.are_deterministic_algorithms_enabled()
        drawn = torch.rand(3)
    finally:
        torch.use_deterministic_algorithms(False)
    set_determinism(load("train.seed=5"))
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.equal(torch.rand(3), drawn)
    set_determinism(load("train.seed=6"))
    assert not torch.equal(torch.rand(3), drawn)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "model"
    make_tiny("qwen3_vl", folder)
    return folder


def test_adapters_have_the_rank_scale_and_dropout_of_the_toml(load: Any, tiny: Path) -> None:
    def adapted(**settings: Any) -> Any:
        config = load(f"policy.model_name_or_path='{tiny}'")
        module = load_pretrained(str(tiny), dtype=torch.float32, device="cpu", config=config)
        add_adapters(module, LoraSection(target_modules=("q_proj",), **settings))
        return dict(module.named_modules())

    plain = adapted(r=4, lora_alpha=8.0, lora_dropout=0.25)
    (name, layer), *_ = [(name, one) for name, one in plain.items() if name.endswith("q_proj")]
    assert layer.lora_A["default"].weight.shape[0] == 4
    assert layer.scaling["default"] == 2.0
    assert layer.lora_dropout["default"].p == 0.25
    other = adapted(r=4, lora_alpha=8.0, use_rslora=True, modules_to_save=("lm_head",))
    assert other[name].scaling["default"] == 4.0  # alpha / sqrt(r)
    trains = {one for one, module in other.items() if any(p.requires_grad for p in module.parameters(recurse=False))}
    assert any("lm_head" in one for one in trains) and not any("lm_head" in one for one in plain if "save" in one)


def test_a_plain_line_comes_every_so_many_steps(load: Any, capsys: pytest.CaptureFixture[str]) -> None:
    view = LiveView(total_steps=8, log_interval=load("logging.log_interval=3").logging.log_interval)
    with view:
        for step in range(1, 9):
            view.show({"step": step, "epoch": 0, **dict.fromkeys(SHOWN, 0.5)})
    assert re.findall(r"step (\d+)/8", capsys.readouterr().err) == ["1", "3", "6", "8"]


def test_kernels_that_are_asked_for_and_not_there_are_refused(load: Any) -> None:
    family: Any = SimpleNamespace(model_type="qwen3_vl")
    refuse_without_effect(load(), family)
    with pytest.raises(ConfigError, match=r"policy\.enable_liger_kernel: liger-kernel is not installed"):
        refuse_without_effect(load("policy.enable_liger_kernel=true"), family)


def test_a_hub_model_is_read_at_its_revision(load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = tmp_path / "hub" / "models--team--qwen3-vl-ours" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text('{"model_type": "qwen3_vl_moe"}')
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    name = "policy.model_name_or_path='team/qwen3-vl-ours'"
    assert "qwen3_vl_moe from config.json" in describe_mode(load(name, "policy.model_revision='abc'"))
    assert "family by the model's name" in describe_mode(load(name, "policy.model_revision='other'"))


def test_code_of_a_checkpoint_runs_only_where_the_toml_trusts_it(
    load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = tmp_path / "coded"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "ours", "auto_map": {"AutoConfig": "ours.OursConfig"}}')
    (folder / "ours.py").write_text(
        "from transformers import PretrainedConfig\n\n\nclass OursConfig(PretrainedConfig):\n    model_type = 'ours'\n"
    )
    with pytest.raises(ConfigError, match="trust_remote_code"):
        read_config(str(folder), trust_remote_code=load().policy.trust_remote_code)
    trusted = load("policy.trust_remote_code=true").policy.trust_remote_code
    assert type(read_config(str(folder), trust_remote_code=trusted)).__name__ == "OursConfig"
