"""The sections of a TOML as frozen values: the cosmos-rl vocabulary that people's files use, plus [mix] and [stream].

Defaults live here and nowhere else. A bound or a Literal in a type is checked by the loader, with file and line.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from vlm_catalogs.config.audit_section import AuditSection
from vlm_catalogs.config.parallelism_section import ParallelismSection
from vlm_catalogs.config.select_section import SelectSection
from vlm_catalogs.config.stream_section import StreamSection
from vlm_catalogs.config.values import Beta, Bound, Count, Dtype, Fraction, NonNegative, Positive, PositiveCount

FROM_COMMAND_LINE = 0
"""The line of a key that ``--set`` gave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomSection:
    """[custom]: which data, and the i4 side of it."""

    use_i4: bool = False
    """True trains on i4 data, false on normal datasets."""
    i4_data_source: str = "i4_data_utils.data_weight_default"
    """``module.attribute`` of the weight dictionary; the module is read as data, not executed."""
    s3_bucket: str = "nv-cosmos-zu-videos"
    """Bucket of i4 sources that name none."""
    s3_credentials_path: str = "credentials/s3_training.secret"
    """JSON file whose keys go to the S3 client as they are."""
    include_video: bool = False
    """False leaves every sample with a video out of the mix."""
    train_layers: tuple[str, ...] = ()
    """Class names of the modules left trainable; empty trains what the patterns of [policy] leave."""
    enable_moe_load_balancing_training: bool = True
    """Balance the experts without an auxiliary loss; only models with experts have any, and not beside adapters."""
    n_step_per_workload_report: PositiveCount = 10
    """Steps between two reports of the experts' load."""
    allow_catalog_code: bool = False
    """True executes a catalogue module that cannot be read as data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSection:
    """[train.train_policy.dataset] and [validation.dataset]: one normal dataset."""

    name: str = ""
    """Path of a file or a folder of samples, or of a catalogue TOML."""
    subset: str = ""
    revision: str = ""
    split: str | tuple[str, ...] = ""
    test_size: Annotated[int | float | None, Bound(low=0)] = None
    """Samples (a whole number) or share (a fraction) held out."""
    local_dir: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainPolicySection:
    """[train.train_policy]: supervised fine-tuning and its batches."""

    type: Literal["sft"] = "sft"
    dataset: DatasetSection = DatasetSection()
    mini_batch: PositiveCount = 2
    """Rows per micro-batch."""
    dataloader_shuffle: bool = True
    dataloader_seed: Count = 0
    """Seed of the order of samples in an epoch."""
    dataloader_num_workers: Count = 0
    dataloader_prefetch_factor: PositiveCount | None = None
    dataloader_drop_last: bool = False
    """True drops a short last step; false fills it with rows that count for nothing."""
    conversation_column_name: str = "conversations"
    system_prompt: str = ""
    """Put before conversations that have no system message; empty puts none."""
    balance_dp_token: bool = True
    """The loss is a mean over the supervised tokens of the whole step; false: the mean over its micro-batches
    (``mini_batch`` rows that follow each other) of the mean over the tokens of each."""
    enable_dp_load_balancing: bool = False
    load_balanced_pool_size: PositiveCount = 32
    load_balanced_max_tokens_for_batch: PositiveCount | None = None
    load_balanced_batching_strategy: str = "prefer_closest"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointSection:
    """[train.ckpt]: what is saved, and when."""

    enable_checkpoint: bool = False
    save_freq: PositiveCount = 20
    """Steps between two checkpoints."""
    save_freq_in_epoch: Count = 0
    """Epochs between two checkpoints, in place of save_freq; 0 goes by save_freq."""
    save_mode: Literal["async", "sync"] = "async"
    """``async`` writes a copy in the background of the next steps, ``sync`` between two steps."""
    max_keep: Annotated[int, Bound(low=-1)] = 5
    """Checkpoints kept, newest first; -1 keeps all."""
    export_safetensors: bool = True
    """Write a model folder that plain transformers loads at the end of training."""
    upload_hf: bool = False
    """Copy the exported model to a private repository of the Hugging Face hub; its token is HF_TOKEN's or a login's."""
    hf_repo_name: str = ""
    """name or owner/name of that repository, which is made where there is none; without owner it is the token's. No
    time is added to the name: a later run of the same name is a later commit."""
    upload_s3: bool | Literal["final", "all"] = False
    """Copy to S3 in the background: ``final`` (and true) what a whole run ends with, ``all`` every checkpoint as well.
    The credentials are those of ``[custom] s3_credentials_path``."""
    s3_bucket: str | None = None
    """Bucket of the copies; required by upload_s3."""
    s3_prefix: str = "outputs"
    """They stand under ``<s3_prefix>/<name of output_dir>/``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSection:
    """[train]: length, optimizer, precision."""

    resume: bool | str = False
    """True continues from the newest checkpoint of output_dir; a path from that checkpoint."""
    epoch: PositiveCount = 1
    """Epochs; training ends at the earlier of this and max_num_steps."""
    output_dir: str = "./outputs"
    max_num_steps: PositiveCount | None = None
    """Optimizer steps."""
    train_batch_per_replica: PositiveCount = 8
    """Rows per optimizer step per data-parallel rank."""
    optm_name: Literal["AdamW"] = "AdamW"
    optm_lr: NonNegative | Mapping[str, NonNegative] = 1e-6
    """Learning rate; as a table, regex on parameter names -> rate: the first match counts, ``default`` is the rest."""
    optm_impl: Literal["fused", "foreach", "for-loop"] = "fused"
    optm_weight_decay: NonNegative = 0.01
    optm_betas: tuple[Beta, Beta] = (0.9, 0.999)
    epsilon: Positive = 1e-6
    optm_warmup_steps: Annotated[int | float, Bound(low=0)] = 20
    """Steps when a whole number; a share of all steps when a float from 0.0 to 1.0."""
    optm_decay_type: Literal["none", "linear", "cosine", "sqrt"] = "none"
    optm_decay_ratio: Fraction | None = None
    """Share of all steps that the decay takes, at the end; None decays from the end of the warm-up."""
    optm_min_lr_factor: Fraction = 0.0
    """The decay ends at this times optm_lr."""
    optm_grad_norm_clip: NonNegative = 1.0
    """Largest gradient norm; 0 does not clip."""
    param_dtype: Dtype = "bfloat16"
    """Type of parameters and activations in forward and backward."""
    master_dtype: Dtype = "float32"
    """Type of the parameters that the optimizer keeps."""
    fsdp_reduce_dtype: Dtype = "float32"
    """Type of gradients on their way between ranks, where param_dtype is not master_dtype."""
    fsdp_offload: bool = False
    """Keep parameters and optimizer state in the memory of the CPU; on CUDA with several ranks."""
    fsdp_reshard_after_forward: Literal["default", "always", "never"] = "default"
    """Give gathered parameters back after the forward pass: ``default`` all but the root group.
    ``never`` keeps them, and whole gradients, until the last micro-batch of a step: more memory, less traffic."""
    compile: bool = True
    """Run the layers through torch.compile. Where the TOML does not say it, on CUDA alone."""
    seed: Count | None = None
    """Seed of everything random in the loop; None is 0."""
    on_bad_step: Literal["stop", "skip"] = "stop"
    """What happens where a loss or a gradient is not finite, or a loss is a spike: ``stop`` ends the run, ``skip``
    goes on with the next step. Neither changes the weights, and both tell of the samples in bad_steps.jsonl."""
    spike_mads: NonNegative = 0.0
    """A loss over the median of the 200 before it by so many times their median absolute deviation is a spike; 0 looks
    for none. ``vlm-train explain --spikes`` uses 6."""
    max_skipped_steps: Count = 20
    """Steps that ``on_bad_step = "skip"`` skips in a run before it stops."""
    max_skipped_in_a_row: Count = 3
    """Steps that it skips one after another before the run stops."""
    stuck_after_seconds: NonNegative = 1800.0
    """A rank that is at one thing (waiting for the rows of a step, the step itself, a save) for so long ends the run:
    the rank that is behind is named, stacks are written to ``<output_dir>/ranks``, the exit code is 75. 0 waits
    forever. No limit holds while the model loads and while it is exported."""
    deterministic: bool = False
    """Use only kernels that give the same bits each time."""
    sequence_packing: bool = False
    """Put several samples into each row of at most model_max_length tokens; they do not see each other."""
    save_ckpt_at_exit: bool = True
    """Save a checkpoint after the last step."""
    train_policy: TrainPolicySection = TrainPolicySection()
    ckpt: CheckpointSection = CheckpointSection()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraSection:
    """[policy.lora]: low-rank adapters; the base weights stay as they are."""

    r: PositiveCount = 8
    lora_alpha: Positive = 8.0
    lora_dropout: Fraction = 0.0
    target_modules: str | tuple[str, ...] = ()
    """Ends of module names; or one regular expression over whole names; or ``all-linear``."""
    modules_to_save: tuple[str, ...] = ()
    """Ends of names of modules that train in full beside the adapters."""
    use_rslora: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySection:
    """[policy]: the model, and which of its parameters train."""

    model_name_or_path: str = ""
    """A model folder or a hub id; required."""
    model_revision: str | None = None
    model_safetensor_path: str | None = None
    """A folder or hub id with the weights to begin with, where they are not those of model_name_or_path."""
    model_max_length: PositiveCount = 4096
    """Tokens in a row, at most."""
    model_gradient_checkpointing: bool | Literal["selective"] = True
    """Recompute activations in the backward pass: all of each layer, or (selective) all but products and attention."""
    freeze_pattern: tuple[str, ...] = ()
    """Regular expressions on parameter names; what matches is frozen."""
    trainable_pattern: tuple[str, ...] = ()
    """Regular expressions on parameter names; only what matches trains."""
    trainable_map: Mapping[str, bool] | None = None
    enable_liger_kernel: bool = False
    """Liger's kernels for norms and rotary positions of Qwen3-VL; on CUDA, where liger-kernel is installed."""
    aux_loss_coeff: NonNegative = 0.0
    """Weight of the loss that evens out the experts of Qwen3-VL MoE, over the whole step; 0 leaves it out."""
    trust_remote_code: bool = False
    """True runs code that comes with the checkpoint."""
    parallelism: ParallelismSection = field(default_factory=ParallelismSection)
    lora: LoraSection | None = None

    @property
    def weights_name_or_path(self) -> str:
        """Where the weights to begin with are."""
        return self.model_safetensor_path or self.model_name_or_path

    @property
    def weights_revision(self) -> str | None:
        """Their revision: ``model_revision`` is one of the model's own repository."""
        return None if self.model_safetensor_path else self.model_revision


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationSection:
    """[validation]: the loss on samples that are not trained on.

    They are ``dataset``, the ``val`` wdinfos of i4 sources, or what the mix holds out ([mix.select.eval], test_size).
    """

    enable: bool = False
    """Measure it every ``freq`` steps and after the last one."""
    freq: PositiveCount = 20
    """Steps between two validations."""
    val_before_train: bool = False
    """Measure it before the first step, too."""
    batch_size: PositiveCount | None = None
    """Samples in one forward pass of a rank; None is mini_batch."""
    generate: Count = 0
    """Held-out samples that the model answers after each validation, always the same; beside their references."""
    max_response_length: PositiveCount = 128
    """Tokens of such an answer, at most."""
    i4_val: bool = True
    """Validate on the ``val`` wdinfo of each i4 source that has one, as dataset ``<name>.val``."""
    dataset: DatasetSection = DatasetSection()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggingSection:
    """[logging]: where numbers go; metrics.jsonl is always written."""

    logger: tuple[Literal["console", "wandb", "tensorboard", "trackio"], ...] = ("console",)
    project_name: str = ""
    """Project of wandb and trackio; empty is vlm-mix."""
    experiment_name: str = ""
    """Name of the run there; empty is the name of output_dir."""
    log_interval: PositiveCount = 10
    """Steps between two plain lines where there is no terminal."""
    report_mfu: bool = False
    """Show which share of the device's peak the operations that a step needs come to; recomputation is not counted."""
    peak_tflops: Annotated[float | None, Bound(low=0)] = None
    """Tera-operations a second of one device, for MFU; None looks its name up (dense bfloat16)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MixSource:
    """[[mix.source]]: one dataset, or a catalogue of them."""

    name: str = ""
    path: str = ""
    """A file or a folder, also s3://bucket/key."""
    format: Literal["auto", "jsonl", "llava", "parquet", "webdataset", "arrow", "mds"] = "auto"
    """``auto`` looks at the files and says what it found."""
    weight: NonNegative = 1.0
    """Relative to all other sources; 0 leaves the source out."""
    media_root: str | None = None
    """Folder that relative media paths start from; None is the folder of each file."""
    catalog: str | None = None
    """Path of a catalogue, a TOML or a meta.json of MMPR's spelling; then name and path are not given."""
    repeat_time: Positive = 1.0
    """Under 1 takes that fraction of the samples; from 1 repeats them."""
    s3_credentials_path: str | None = None
    """As ``[custom] s3_credentials_path``, for this source; None is boto3's own chain."""
    columns: Mapping[str, str] | None = None
    """``messages``, ``conversations``, ``images``, ``image``, ``videos``, ``video``, ``id`` -> its name there."""
    line: int = field(default=FROM_COMMAND_LINE, compare=False)
    """Line of the table in the TOML."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MixSection:
    """[mix]: what the mix is made of, and where it lies."""

    root: str = "mixes"
    """Folder of mixes, also s3://bucket/prefix."""
    name: str = ""
    """Folder of the mix under root; the loader fills it with the file's stem."""
    shards: str = "shards"
    """Folder of converted sources, also s3://bucket/prefix; mixes share it."""
    s3_credentials_path: str | None = None
    """As ``[custom] s3_credentials_path``, for root and shards in S3; None is that file, else boto3's own chain."""
    s3_cache: str = "s3_cache"
    """Folder for root and shards in S3: copies of their index files, and parts on their way there."""
    i4_root: str | None = None
    """A local mirror of the i4 bucket."""
    source: tuple[MixSource, ...] = ()
    weight_unit: Literal["samples", "tokens", "repeats"] = "samples"
    """What weights share out: the samples of an epoch, its tokens, or nothing: ``repeats`` draws each dataset
    ``weight`` times."""
    epoch_samples: PositiveCount | None = None
    """Draws in one epoch; None is the number of selected samples."""
    epoch_tokens: PositiveCount | None = None
    """With ``weight_unit = "tokens"``: tokens of one epoch; None is the tokens of all selected samples."""
    seed: Count = 0
    convert: Literal["all", "needed"] = "all"
    """``needed`` takes parts in a seeded order until the draws of all epochs (``epoch_samples`` each) are covered."""
    decode: Literal["header", "full"] = "header"
    """``full`` decodes every medium once, as training would; what does not decode leaves at selection."""
    length_policy: Literal["drop", "shrink_media", "cut_text"] = "drop"
    """What happens to a sample longer than model_max_length."""
    allow_missing_tars: bool = False
    """True skips tars that wdinfo.json names but that are not there."""
    max_rejected_fraction: Fraction = 0.01
    """The build fails when more of a source is rejected (and more than 10 samples)."""
    max_sample_bytes: PositiveCount = 268_435_456
    num_workers: Count = 0
    """Processes that convert; 0 uses every core."""
    engine: Literal["local", "ray"] = "local"
    """Where parts are converted and measured: processes of this machine, or the Ray cluster that it belongs to."""
    scratch: str | None = None
    """Folder for what is needed only while building (tars fetched from S3, DuckDB's spill); None is below shards."""
    max_memory: str | None = None
    """Such as "8GB": DuckDB gets three quarters of it, and one converting process is allowed for each GB."""
    fetch_media: bool = False
    """True fetches media that rows name by an http(s) URL; false rejects such rows. Only from public addresses."""
    fetch_private_hosts: tuple[str, ...] = ()
    """Hosts that media may come from although their addresses are not public, such as a store of your own."""
    select: SelectSection = field(default_factory=SelectSection)
    audit: AuditSection = field(default_factory=AuditSection)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """One TOML, read and checked. Fields that are not compared are about the file; all others are settings."""

    path: Path = field(compare=False)
    custom: CustomSection = CustomSection()
    train: TrainSection = TrainSection()
    policy: PolicySection = PolicySection()
    validation: ValidationSection = ValidationSection()
    logging: LoggingSection = LoggingSection()
    mix: MixSection = MixSection()
    stream: StreamSection = field(default_factory=StreamSection)
    notes: tuple[str, ...] = field(default=(), compare=False)
    """What a user should know: settings without effect, and what to use instead."""
    lines: Mapping[str, int] = field(default_factory=dict, compare=False)
    """Dotted key -> line where the user wrote it; FROM_COMMAND_LINE when ``--set`` did."""

    @property
    def mix_name(self) -> str:
        """Name of the mix: ``[mix] name``, else the stem of the file."""
        return self.mix.name or self.path.stem

    def where(self, key: str) -> str:
        """Where ``key`` was written, such as ``configs/x.toml:12``; just the file for a default."""
        line = self.lines.get(key)
        if line == FROM_COMMAND_LINE:
            return "--set"
        return f"{self.path}:{line}" if line else str(self.path)

    def resolved_toml(self) -> str:
        """Every setting with the value it came to have, as TOML that loads to an equal Config."""
        from vlm_catalogs.config.toml_text import config_text

        return config_text(self)
