"""What becomes of each cosmos-rl key that is not simply honoured: a note where no result changes, else an error.

People's files should run unchanged, so a setting whose absence changes nothing in the trained model gets a line in one
note; a setting that would change results or the layout of the run is an error that says it is not built yet.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

NO_CONTROLLER = "no server or controller is needed: vlm-train run starts the training itself"
NO_ROLLOUT = "this is supervised fine-tuning: nothing is generated"
GREEDY = "an answer of [validation] generate is one for each sample, of the likeliest tokens"
NO_DIFFUSION = "only vision-language models are trained here"
USE_VALIDATION = "does nothing in cosmos-rl either; a held-out loss is [validation] enable"
SHARDS_ARE_READ = "shards are read from disk: see [stream] num_workers"
SPEED_ONLY = "not built yet; changes speed or memory, not results"
DATA_PARALLEL_ONLY = (
    "not built yet: ranks share rows, parameters and experts (dp_shard_size, dp_replicate_size, ep_size)"
)
NO_LIGER_LOSS = "only the project's own loss is used, which never holds all logits; leave it false"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """One key's fate: always a note, or an error for the values that are not ``harmless``."""

    advice: str
    harmless: Callable[[object], bool] = lambda value: True
    """False for a value that would change results: it is refused."""
    silent: Callable[[object], bool] = lambda value: False
    """True for a value that asks for nothing, so that not even a note is needed."""


def _only(*values: object) -> Callable[[object], bool]:
    return lambda value: any(type(value) is type(each) and value == each for each in values)


def _noted(advice: str, *keys: str, unless: tuple[object, ...] = ()) -> dict[str, Fate]:
    return {key: Fate(advice=advice, silent=_only(*unless)) for key in keys}


def _refused(advice: str, *keys: str, unless: tuple[object, ...]) -> dict[str, Fate]:
    return {key: Fate(advice=advice, harmless=_only(*unless), silent=_only(*unless)) for key in keys}


GRPO_KEYS = [
    "variant",
    "prompt_column_name",
    "response_column_name",
    "reward_function",
    "use_remote_reward",
    "remote_reward",
    "filter_reward_metric",
    "bypass_reward",
    "group_reward_calculation",
    "temperature",
    "epsilon_low",
    "epsilon_high",
    "advantage_low",
    "advantage_high",
    "positive_nll_coef",
    "lower_bound_ratio",
    "loss_type",
    "unbiased_loss_max_tokens",
    "unbiased_advantage",
    "algo",
    "overlong_reward",
    "kl_beta",
    "unbiased_kl_estimate",
    "off_policy_masking_delta",
    "aipo_rho",
    "mu_iterations",
    "batch_size_per_optimize",
    "max_token_len_per_mini_batch",
    "entropy_coeff",
    "allowed_outdated_steps",
    "on_policy",
    "uncentralized_training",
    "outdated_rollout_fetch_batch_size",
    "max_inflight_steps",
    "min_filter_prefix_tokens",
    "max_retry_for_on_policy",
    "reference_reset_interval",
    "reset_optimizer_with_reference",
    "use_decoupled_loss",
    "behav_imp_weight_cap",
    "rollout_as_token_ids",
    "collect_rollout_logprobs",
    "use_rollout_logprobs_for_loss",
    "no_outdated_rollout",
]

MEANINGLESS: dict[str, Fate] = {
    **_noted(NO_CONTROLLER, "redis", "eth_ips", "mode"),
    **_noted(NO_CONTROLLER, "policy.parallelism.n_init_replicas", unless=(1,)),
    **_noted(NO_ROLLOUT, "rollout", "vla", "distillation", "train.sync_weight_interval", "train.coalesce_weight_sync"),
    **_noted(NO_ROLLOUT, "train.transfer_dtype", "train.logprob_dtype"),
    **_noted(NO_ROLLOUT, *(f"train.train_policy.{key}" for key in GRPO_KEYS)),
    **_noted(
        GREEDY,
        *(f"validation.{key}" for key in ("temperature", "top_p", "top_k", "repetition_penalty", "n_generation")),
    ),
    **_noted(
        NO_ROLLOUT,
        *(f"validation.{key}" for key in ("reward_function", "use_remote_reward", "remote_reward")),
    ),
    **_noted(NO_DIFFUSION, "policy.diffusers"),
    **_noted(USE_VALIDATION, "train.enable_validation", "train.validation_step", "train.validation_batch_per_replica"),
    **_noted("does nothing in cosmos-rl either; leave it out", "policy.parallelism.cp_rotate_method"),
    **_noted(
        "pipelines are not built yet, so nothing reads it",
        *(
            f"policy.parallelism.pp_{key}"
            for key in ("dynamic_shape", "micro_batch_size", "schedule", "layers_per_stage")
        ),
    ),
    **_noted(
        "samples come from the mix that vlm-prep build-mix makes",
        *(f"train.{key}" for key in ("local_dataset", "force_use_hf", "non_text")),
        *(f"train.train_policy.{key}" for key in ("enable_dataset_cache", "data_dispatch_as_rank_in_mesh")),
        *(f"train.train_policy.{key}" for key in ("dataloader_batch_size", "dataloader_broadcast")),
    ),
    **_noted("runs are told apart by output_dir", "train.timestamp", "logging.group_name"),
    **_noted("metrics.jsonl has a line for each step", "logging.multi_modal_log_interval"),
    **_noted("SIGINT, SIGTERM and SIGUSR1 are what ends a run early", "train.signal_to_handle"),
    **_noted("profiling is not built yet", "profiler"),
    **_noted("an average of the weights is not built yet", "train.ema_decay", "train.ema_update_step_interval"),
}
"""Keys that no section has and that change nothing here; a table's name covers all under it."""

PERFORMANCE: dict[str, Fate] = {
    **_noted(SPEED_ONLY, "train.async_tp_enabled", "train.activation_offload", unless=(False,)),
    **_noted(SPEED_ONLY, "train.fa_version"),
    **_noted(SPEED_ONLY, "train.train_policy.enable_dp_load_balancing", unless=(False,)),
    **_noted(SPEED_ONLY, "train.train_policy.load_balanced_pool_size", unless=(32,)),
    **_noted(SPEED_ONLY, "train.train_policy.load_balanced_max_tokens_for_batch"),
    **_noted(SPEED_ONLY, "train.train_policy.load_balanced_batching_strategy", unless=("prefer_closest",)),
    **_noted(SPEED_ONLY, "train.train_policy.load_balanced_batches_per_optimizer_step", unless=(1,)),
    **_noted(SHARDS_ARE_READ, "train.train_policy.dataloader_prefetch_factor"),
}
"""Settings whose absence changes no trained weight beyond rounding; a note, so that people's files run unchanged."""

NOT_BUILT: dict[str, Fate] = {
    **_refused(
        f"{DATA_PARALLEL_ONLY}; set it to 1",
        *(f"policy.parallelism.{key}" for key in ("cp_size", "pp_size")),
        unless=(1,),
    ),
    **_refused("8-bit training is not built yet; leave it false", "train.fp8.enable_fp8", unless=(False,)),
    **_refused("4-bit training is not built yet; leave it false", "train.fp4.enable_fp4", unless=(False,)),
    **_noted("low precision is not built yet, so nothing reads it", "train.fp8", "train.fp4"),
    **_refused("an average of the weights is not built yet; leave it false", "train.ema_enable", unless=(False,)),
    **_refused("a warm-up that starts above 0 is not built yet", "train.optm_warmup_start_factor", unless=(0, 0.0)),
    **_refused("only trainer_type 'sft' is built", "train.train_policy.trainer_type", unless=("sft",)),
    **_refused(f"{NO_DIFFUSION}; leave it false", "policy.is_diffusers", unless=(False,)),
    **_refused("distillation is not built yet; leave it false", "distillation.enable", unless=(False,)),
    **_refused(
        NO_LIGER_LOSS,
        *(f"policy.enable_liger_{key}" for key in ("cross_entropy", "fused_cross_entropy")),
        unless=(False,),
    ),
}
"""Settings that would change results or the layout of the run; a value that does is an error."""

FATES: dict[str, Fate] = {**MEANINGLESS, **PERFORMANCE, **NOT_BUILT}


@dataclass(slots=True)
class Fates:
    """The fates that one TOML met, for its one note."""

    _noted: dict[str, list[str]] = field(default_factory=dict)

    def covers(self, key: str) -> bool:
        """True when ``key`` or a table around it has a fate of its own."""
        return _nearest(key) is not None

    def has_under(self, key: str) -> bool:
        """True when some key under the table ``key`` has a fate."""
        return any(known.startswith(f"{key}.") for known in FATES)

    def judge(self, key: str, value: object) -> str | None:
        """Why ``value`` is refused, or None; a harmless value without effect is remembered for the note."""
        nearest = _nearest(key)
        if nearest is None:
            return None
        fate = FATES[nearest]
        if not fate.harmless(value):
            return fate.advice
        if not fate.silent(value):
            keys = self._noted.setdefault(fate.advice, [])
            keys += [] if nearest in keys else [nearest]
        return None

    def notes(self) -> tuple[str, ...]:
        """One note that names every key without effect and says what to use instead; none when there is no such key."""
        if not self._noted:
            return ()
        lines = [f"  {', '.join(keys)}: {advice}" for advice, keys in self._noted.items()]
        return ("settings without effect here:\n" + "\n".join(lines),)


def _nearest(key: str) -> str | None:
    """``key``, or the nearest table around it, that has a fate."""
    while key and key not in FATES:
        key = key.rpartition(".")[0]
    return key or None
