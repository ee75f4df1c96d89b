"""Every key that people's cosmos-rl files hold has a fate: honoured, noted, or refused."""

from pathlib import Path

import pytest

from vlm_catalogs.config import Config, load_config
from vlm_catalogs.config.fates import FATES
from vlm_catalogs.config.loader import all_keys
from vlm_catalogs.errors import ConfigError

MODEL = 'policy.model_name_or_path="Qwen/Qwen3-VL-8B-Instruct"'

VOCABULARY: dict[str, str] = {
    "custom.use_i4": "false",
    "custom.i4_data_source": "'i4_data_utils.data_weight_default'",
    "custom.s3_bucket": "'nv-cosmos-zu-videos'",
    "custom.s3_credentials_path": "'credentials/s3_training.secret'",
    "custom.include_video": "false",
    "custom.train_layers": "[]",
    "custom.enable_moe_load_balancing_training": "true",
    "custom.n_step_per_workload_report": "10",
    "train.resume": "false",
    "train.epoch": "1",
    "train.output_dir": "'./outputs'",
    "train.max_num_steps": "",
    "train.train_batch_per_replica": "8",
    "train.optm_name": "'AdamW'",
    "train.optm_lr": "1e-6",
    "train.optm_impl": "",
    "train.optm_weight_decay": "0.01",
    "train.optm_betas": "[0.9, 0.999]",
    "train.epsilon": "1e-6",
    "train.optm_warmup_steps": "20",
    "train.optm_decay_type": "",
    "train.optm_decay_ratio": "",
    "train.optm_min_lr_factor": "0",
    "train.optm_grad_norm_clip": "1.0",
    "train.param_dtype": "'bfloat16'",
    "train.master_dtype": "'float32'",
    "train.fsdp_reduce_dtype": "'float32'",
    "train.fsdp_offload": "false",
    "train.fsdp_reshard_after_forward": "'default'",
    "train.compile": "true",
    "train.seed": "",
    "train.deterministic": "",
    "train.sequence_packing": "false",
    "train.save_ckpt_at_exit": "true",
    "train.train_policy.type": "'sft'",
    "train.train_policy.dataset.name": "",
    "train.train_policy.dataset.subset": "",
    "train.train_policy.dataset.revision": "",
    "train.train_policy.dataset.split": "",
    "train.train_policy.dataset.test_size": "",
    "train.train_policy.dataset.local_dir": "",
    "train.train_policy.mini_batch": "2",
    "train.train_policy.dataloader_shuffle": "",
    "train.train_policy.dataloader_seed": "",
    "train.train_policy.dataloader_num_workers": "",
    "train.train_policy.dataloader_prefetch_factor": "",
    "train.train_policy.dataloader_drop_last": "",
    "train.train_policy.conversation_column_name": "",
    "train.train_policy.system_prompt": "",
    "train.train_policy.balance_dp_token": "true",
    "train.train_policy.enable_dp_load_balancing": "",
    "train.train_policy.load_balanced_pool_size": "",
    "train.train_policy.load_balanced_max_tokens_for_batch": "",
    "train.train_policy.load_balanced_batching_strategy": "",
    "train.ckpt.enable_checkpoint": "false",
    "train.ckpt.save_freq": "20",
    "train.ckpt.save_freq_in_epoch": "0",
    "train.ckpt.save_mode": "",
    "train.ckpt.max_keep": "5",
    "train.ckpt.export_safetensors": "true",
    "train.ckpt.upload_hf": "",
    "train.ckpt.hf_repo_name": "",
    "train.ckpt.upload_s3": "false",
    "train.ckpt.s3_bucket": "",
    "train.ckpt.s3_prefix": "",
    "policy.model_name_or_path": "",
    "policy.model_revision": "",
    "policy.model_safetensor_path": "",
    "policy.model_max_length": "4096",
    "policy.model_gradient_checkpointing": "true",
    "policy.freeze_pattern": "",
    "policy.trainable_pattern": "",
    "policy.trainable_map": "",
    "policy.enable_liger_kernel": "",
    "policy.aux_loss_coeff": "",
    "policy.parallelism.dp_shard_size": "1",
    "policy.parallelism.dp_replicate_size": "1",
    "policy.parallelism.tp_size": "",
    "policy.parallelism.ep_size": "",
    "policy.parallelism.cp_size": "",
    "policy.parallelism.pp_size": "",
    "policy.parallelism.n_init_replicas": "",
    "policy.lora.r": "8",
    "policy.lora.lora_alpha": "8",
    "policy.lora.lora_dropout": "0",
    "policy.lora.target_modules": "",
    "policy.lora.modules_to_save": "",
    "policy.lora.use_rslora": "",
    "validation.enable": "",
    "validation.freq": "20",
    "validation.val_before_train": "",
    "validation.batch_size": "",
    "validation.dataset.name": "",
    "logging.logger": "",
    "logging.project_name": "",
    "logging.experiment_name": "",
    "logging.log_interval": "",
    "logging.report_mfu": "",
}
"""The keys of the vocabulary with the default that is known for each; empty where none is."""

WITHOUT_SECTION: dict[str, str] = {
    "redis": "'12800'",
    "eth_ips": "'10.0.0.1'",
    "mode": "'colocated'",
    "rollout.gpu_memory_utilization": "0.7",
    "rollout.parallelism.tp_size": "2",
    "rollout.sampling_config.temperature": "0.9",
    "vla.num_envs": "1",
    "distillation.top_k": "0",
    "profiler.enable_profiler": "true",
    "profiler.sub_profiler_config.active_steps": "6",
    "train.enable_validation": "true",
    "train.validation_step": "30",
    "train.validation_batch_per_replica": "2",
    "train.sync_weight_interval": "1",
    "train.transfer_dtype": "'bfloat16'",
    "train.logprob_dtype": "'float32'",
    "train.fa_version": "3",
    "train.local_dataset": "true",
    "train.non_text": "false",
    "train.timestamp": "'20260101'",
    "train.signal_to_handle": "['SIGUSR1']",
    "train.activation_offload": "true",
    "train.async_tp_enabled": "true",
    "train.ema_decay": "0.99",
    "train.fp8.fp8_recipe": "'dynamic_scaling'",
    "train.train_policy.enable_dataset_cache": "false",
    "train.train_policy.dataloader_batch_size": "1",
    "train.train_policy.reward_function": "['format']",
    "train.train_policy.kl_beta": "0.0",
    "train.train_policy.allowed_outdated_steps": "4",
    "policy.parallelism.cp_rotate_method": "'allgather'",
    "policy.parallelism.pp_micro_batch_size": "2",
    "policy.parallelism.n_init_replicas": "2",
    "policy.diffusers.is_video": "true",
    "logging.group_name": "'a'",
    "logging.multi_modal_log_interval": "5",
    "validation.temperature": "0.0",
    "validation.n_generation": "1",
}
"""Keys of cosmos-rl's own files that this project has no section for, and values that people have."""

HELD_OUT_PARTS: dict[str, str] = {
    "validation.dataset.subset": "'a'",
    "validation.dataset.revision": "'a'",
    "validation.dataset.local_dir": "'a'",
    "validation.dataset.split": "'validation'",
    "validation.dataset.test_size": "100",
}
"""Parts of a dataset to validate on; beside its name and validation.enable they would change what is measured."""

NOTED_VALUES: dict[str, str] = {
    "train.train_policy.enable_dp_load_balancing": "true",
    "train.train_policy.load_balanced_pool_size": "16",
    "train.train_policy.load_balanced_max_tokens_for_batch": "9000",
    "train.train_policy.dataloader_prefetch_factor": "4",
    **HELD_OUT_PARTS,
}
"""Values that change no result here."""

REFUSED_VALUES: dict[str, str] = {
    "train.fp8.enable_fp8": "true",
    "train.fp4.enable_fp4": "true",
    "train.ema_enable": "true",
    "train.optm_warmup_start_factor": "0.1",
    "train.train_policy.trainer_type": "'pi_sft'",
    "train.train_policy.type": "'grpo'",
    "train.train_policy.conversation_column_name": "'conversation'",
    "train.train_policy.dataset.subset": "'a'",
    "train.train_policy.dataset.revision": "'a'",
    "train.train_policy.dataset.local_dir": "'a'",
    "train.train_policy.dataset.split": "['train', 'val']",
    "policy.parallelism.cp_size": "2",
    "policy.parallelism.pp_size": "2",
    "policy.enable_liger_cross_entropy": "true",
    "policy.is_diffusers": "true",
    "distillation.enable": "true",
}
"""Values that would change results or the layout of the run."""


def load(folder: Path, *overrides: str) -> Config:
    path = folder / "run.toml"
    path.write_text("")
    return load_config(path, overrides=(MODEL, *overrides))


@pytest.mark.parametrize("key", sorted(VOCABULARY))
def test_each_key_of_the_vocabulary_is_a_setting(key: str) -> None:
    assert key in all_keys()


def test_defaults_are_those_of_the_vocabulary(tmp_path: Path) -> None:
    """A known default given in so many words gives the same Config as leaving it out."""
    given = [f"{key}={value}" for key, value in VOCABULARY.items() if value and not key.startswith("policy.lora")]
    assert load(tmp_path, *given) == load(tmp_path)


@pytest.mark.parametrize("key", sorted(WITHOUT_SECTION))
def test_a_key_without_a_meaning_here_is_named_in_the_note(tmp_path: Path, key: str) -> None:
    config = load(tmp_path, f"{key}={WITHOUT_SECTION[key]}")
    named = [known for known in FATES if key == known or key.startswith(f"{known}.")]
    assert len(config.notes) == 1
    assert max(named, key=len) in config.notes[0]


@pytest.mark.parametrize("key", sorted(NOTED_VALUES))
def test_a_value_that_changes_no_result_is_named_in_the_note(tmp_path: Path, key: str) -> None:
    config = load(tmp_path, f"{key}={NOTED_VALUES[key]}")
    assert len(config.notes) == 1
    assert key in config.notes[0]


@pytest.mark.parametrize("key", sorted(REFUSED_VALUES))
def test_a_value_that_would_change_results_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, f"{key}={REFUSED_VALUES[key]}")
    message = str(caught.value)
    assert message.startswith("--set: ")
    assert message.count("\n") == 0
    assert message.endswith("got 'grpo'") if key.endswith(".type") else " built" in message or "only " in message


@pytest.mark.parametrize("key", sorted(HELD_OUT_PARTS))
def test_a_part_of_a_dataset_to_validate_on_is_refused_where_it_is_read(tmp_path: Path, key: str) -> None:
    read = ("validation.enable=true", "validation.dataset.name='held_out'")
    with pytest.raises(ConfigError, match=f"{key}: "):
        load(tmp_path, *read, f"{key}={HELD_OUT_PARTS[key]}")
    assert load(tmp_path, *read, "validation.dataset.split='train'").notes == ()


def test_all_keys_without_effect_stand_in_one_note_that_says_what_to_use(tmp_path: Path) -> None:
    config = load(tmp_path, "redis='12800'", "eth_ips=''", "rollout.n_generation=8", "train.validation_step=3")
    (note,) = config.notes
    assert note.split("\n") == [
        "settings without effect here:",
        "  redis, eth_ips: no server or controller is needed: vlm-train run starts the training itself",
        "  rollout: this is supervised fine-tuning: nothing is generated",
        "  train.validation_step: does nothing in cosmos-rl either; a held-out loss is [validation] enable",
    ]


def test_values_that_ask_for_nothing_make_no_note(tmp_path: Path) -> None:
    quiet = [f"policy.parallelism.{key}=1" for key in ("tp_size", "cp_size", "pp_size", "n_init_replicas")]
    quiet += ["train.compile=false", "train.fsdp_offload=false", "train.fp8.enable_fp8=false", "logging.logger=[]"]
    assert load(tmp_path, "policy.parallelism.dp_shard_size=-1", *quiet).notes == ()


def test_every_fate_is_reachable() -> None:
    """A fate whose name is misspelled would never be met: it is a setting, or no section has its last name's table."""
    settings = set(all_keys())
    tables = {"policy.lora"} | {key.rpartition(".")[0] for key in settings} | {""}
    for key in FATES:
        parent = key.rpartition(".")[0]
        assert key in settings or parent in tables or parent in FATES or parent == "distillation"


def test_i4_data_keeps_the_dataset_table_of_a_file_with_a_note(tmp_path: Path) -> None:
    keys = [
        f"train.train_policy.{key}"
        for key in ("dataset.name='x'", "dataset.subset='y'", "dataset.test_size=100", "conversation_column_name='c'")
    ]
    (note,) = load(tmp_path, "custom.use_i4=true", *keys).notes
    assert note.startswith("use_i4 = true: [train.train_policy] dataset is not read")


PEOPLES_FILE = """\
redis = "12800"

[train]
resume = false
epoch = 1
output_dir = "./outputs/mine"
epsilon = 1e-6
optm_name = "AdamW"
optm_lr = 1e-6
optm_impl = "fused"
optm_weight_decay = 0.01
optm_betas = [ 0.9, 0.999,]
optm_warmup_steps = 20
optm_grad_norm_clip = 1.0
async_tp_enabled = false
compile = false
param_dtype = "bfloat16"
fsdp_reduce_dtype = "float32"
fsdp_offload = false
fsdp_reshard_after_forward = "default"
train_batch_per_replica = 32
sync_weight_interval = 1
enable_validation = false
validation_step = 30
validation_batch_per_replica = 2

[policy]
model_name_or_path = "Qwen/Qwen3-VL-8B-Instruct"
model_max_length = 4096
model_gradient_checkpointing = true

[logging]
logger = ['console', 'wandb']
project_name = "mine"
experiment_name = "first"

[train.train_policy]
type = "sft"
dataset.name = "data/mine"
dataset.subset = ""
dataset.split = "train"
conversation_column_name = "conversations"
enable_dataset_cache = false
dataloader_num_workers = 4
dataloader_prefetch_factor = 4
mini_batch = 4

[train.ckpt]
enable_checkpoint = true
save_freq = 20
save_mode = "async"

[policy.parallelism]
n_init_replicas = 1
tp_size = 1
cp_size = 1
dp_shard_size = 1
pp_size = 1
dp_replicate_size = 1
cp_rotate_method = "allgather"
"""


def test_a_file_in_the_shape_people_have_loads_unchanged_with_one_note(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(PEOPLES_FILE)
    config = load_config(path)
    assert config.train.train_policy.dataset.name == "data/mine"
    (note,) = config.notes
    for key in ("redis", "train.enable_validation", "policy.parallelism.cp_rotate_method"):
        assert key in note
