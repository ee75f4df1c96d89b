"""Training on one thread: ours against TRL on the same samples and tiny Qwen3-VL, and against a bare loop.

TRL 1.16.0 (not in the lock: ``pip install --no-deps --target <cache> trl==1.16.0 datasets==4.8.5 dill==0.4.1
multiprocess==0.70.19 pandas==3.1.1``, beside the project's own torch and transformers) trains by ``SFTTrainer`` with
``assistant_only_loss``, its own Qwen3-VL training template, four samples a step, no gradient checkpointing, no workers.
Ours is the real ``run_training`` on a mix of the same samples: once with the same four samples a micro-batch and step,
once with ``sequence_packing`` and one row a step (about five samples; TRL refuses packing for pictures). Everything is
in one process and fp32, decoding included on both sides. Every sample has a picture and an answer; lengths are
log-normal with mean 0.2 of the row. Rates are useful tokens a second from the third step on, medians of BENCH_ROUNDS
(3) interleaved rounds. ms-swift is left out: 4.6.0 with its transformers 5.19.0 (``pip install --no-deps --target``,
beside the project's torch) imports and loads the tiny Qwen3-VL on a CPU, but its first step stops: its template puts 4
image tokens where the tower gives 96 features. It needs flash attention to pack.

The bare loop: forward, backward and AdamW over one ready batch, the same module and the same loss over supervised
tokens, all logits at once; ours takes the same rows through ``take_step`` with its metrics, files and clipping. Steps
last 0.5 s or more; the cost is the median of 5 interleaved rounds, and beside it that in processor time, which other
programs on the machine disturb less. One JSON line per figure.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from peer_packages import peer_folder
from PIL import Image
from torch.nn.functional import cross_entropy

from vlm_catalogs.config import load_config
from vlm_train import run
from vlm_train.make_tiny import make_tiny
from vlm_train.metrics import read_metrics
from vlm_train.sample_loss import SampleLossLog

TRL = ("trl==1.16.0", "datasets==4.8.5", "dill==0.4.1", "multiprocess==0.70.19", "pandas==3.1.1")
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
BARE_ROUNDS = 5
BATCH = 4
WARM_UP = 2
NUM_SAMPLES = {1024: 96, 4096: 96}
WORDS = (
    "a red square",
    "is",
    "on the left",
    "and",
    "two people",
    "can be found",
    "near the water",
    "under a cloudy sky",
)
TOML = """
[train]
output_dir = "{folder}/run"
train_batch_per_replica = {rows}
optm_lr = 1e-3
optm_warmup_steps = 0
optm_impl = "{optimizer}"
param_dtype = "float32"
sequence_packing = {packing}
save_ckpt_at_exit = false

[train.train_policy]
mini_batch = {rows}

[train.ckpt]
export_safetensors = false

[policy]
model_name_or_path = "{model}"
model_max_length = {length}
model_gradient_checkpointing = false

[mix]
name = "bench"
root = "{data}/mixes"
shards = "{data}/shards"
num_workers = 1

[[mix.source]]
name = "bench"
path = "{data}/train.jsonl"
"""


@dataclass(frozen=True)
class Measured:
    """Steps after the warm-up."""

    seconds: float
    useful_tokens: int
    padding_tokens: int
    tokens_of_all_steps: int
    """Useful ones, the warm-up included: equal on both sides, or they do not train on the same samples."""

    @property
    def speed(self) -> float:
        """Useful tokens a second."""
        return self.useful_tokens / self.seconds

    @property
    def padding_share(self) -> float:
        """Of all tokens."""
        return self.padding_tokens / (self.useful_tokens + self.padding_tokens)


def write_samples(data: Path, row_tokens: int) -> None:
    """``train.jsonl`` and pictures: log-normal lengths, mean 0.2 of a row, half of the text in the answer."""
    random = np.random.default_rng(0)
    (data / "img").mkdir(parents=True)
    lines = []
    for number in range(NUM_SAMPLES[row_tokens]):
        height, width = (int(one) for one in random.integers(64, 200, 2))
        blocks = random.integers(0, 255, (height // 16 + 1, width // 16 + 1, 3))
        pixels = np.kron(blocks, np.ones((16, 16, 1)))[:height, :width].astype(np.uint8)
        Image.fromarray(pixels).save(data / "img" / f"{number:04d}.jpg")
        length = int(np.clip(random.lognormal(np.log(0.2 * row_tokens) - 0.08, 0.4), 64, 0.9 * row_tokens))
        words = " ".join(WORDS[index] for index in random.integers(0, len(WORDS), length)).split()[
            : max(8, length - 50)
        ]
        question, answer = " ".join(words[: len(words) // 2]), " ".join(words[len(words) // 2 :])
        content = [{"type": "image", "image": f"img/{number:04d}.jpg"}, {"type": "text", "text": question}]
        messages = [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
        lines.append(json.dumps({"id": str(number), "messages": messages}))
    (data / "train.jsonl").write_text("\n".join(lines) + "\n")


def write_toml(folder: Path, data: Path, model: Path, *, length: int, packing: bool, rows: int) -> Path:
    """The TOML of one way to train."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.toml"
    path.write_text(
        TOML.format(
            folder=folder, data=data, model=model, rows=rows, length=length,
            packing=str(packing).lower(), optimizer="fused",
        )
    )  # fmt: skip
    return path


def build_mix(toml: Path) -> None:
    """The real command."""
    subprocess.run([sys.executable, "-m", "vlm_prep.cli", "build-mix", str(toml)], check=True, capture_output=True)


def train_ours(toml: Path, *, run_number: int) -> Measured:
    """Steps of the real run, timed from the end of the warm-up to the end of the last."""
    output = toml.parent / f"run-{run_number}"
    config = load_config(toml, overrides=[f"train.output_dir={output}"])
    ends: list[float] = []
    real = run.take_step

    def timed(*arguments: Any) -> Any:
        taken = real(*arguments)
        if taken is not None:
            ends.append(time.perf_counter())
        return taken

    run.take_step = timed
    try:
        with redirect_stderr(StringIO()):
            assert run.run_training(config, resume=False) == 0
    finally:
        run.take_step = real
    every = read_metrics(output / "metrics.jsonl")
    lines = every[WARM_UP:]
    useful = sum(line["tokens/bench"] for line in lines)
    padding = sum(
        line["tokens/bench"] * line["train/padding_share"] / (1 - line["train/padding_share"]) for line in lines
    )
    return Measured(
        seconds=ends[-1] - ends[WARM_UP - 1],
        useful_tokens=useful,
        padding_tokens=round(padding),
        tokens_of_all_steps=sum(line["tokens/bench"] for line in every),
    )


def unfilled_share(output: Path, length: int) -> float:
    """Share of the places of packed rows that no token fills, the last row of the epoch apart."""
    tables = [pq.read_table(path) for path in sorted((output / "epochs").glob("*/*.parquet"))]
    rows: dict[tuple[int, int], int] = {}
    for table in tables:
        for line in table.to_pylist():
            if line["status"] == "planned":
                rows[line["step"], line["row"]] = rows.get((line["step"], line["row"]), 0) + line["tokens"]
    filled = [rows[key] for key in sorted(rows)]
    filled.remove(min(filled))
    return 1 - sum(filled) / (len(filled) * length)


class Trl:
    """TRL's trainer over the same samples."""

    def __init__(self, packages: Path, data: Path, model: Path, scratch: Path) -> None:
        sys.path.append(str(packages))
        self._data, self._model, self._scratch = data, model, scratch
        self._template = (packages / "trl" / "chat_templates" / "qwen3_vl_training.jinja").read_text()

    def train(self) -> Measured:
        """One epoch; as its documentation says, nothing of TRL is changed but for the counting of tokens."""
        from datasets import Dataset, Sequence  # type: ignore[import-not-found, unused-ignore]
        from datasets import Image as ImageColumn
        from transformers import AutoModelForImageTextToText, AutoProcessor
        from trl import SFTConfig, SFTTrainer  # type: ignore[import-not-found, unused-ignore]

        processor = AutoProcessor.from_pretrained(self._model)
        processor.chat_template = self._template
        module = AutoModelForImageTextToText.from_pretrained(self._model, dtype=torch.float32)
        samples = [json.loads(line) for line in (self._data / "train.jsonl").read_text().splitlines()]
        rows = [
            {
                "messages": _uniform(one["messages"]),
                "images": [str(self._data / one["messages"][0]["content"][0]["image"])],
            }
            for one in samples
        ]
        dataset = Dataset.from_list(rows).cast_column("images", Sequence(ImageColumn()))
        settings = SFTConfig(
            output_dir=str(self._scratch), num_train_epochs=1, per_device_train_batch_size=BATCH, learning_rate=1e-3,
            lr_scheduler_type="constant", logging_strategy="no", save_strategy="no", report_to=[], use_cpu=True,
            bf16=False, fp16=False, max_length=None, gradient_checkpointing=False, assistant_only_loss=True,
            dataloader_num_workers=0, seed=0, disable_tqdm=True,
        )  # fmt: skip
        trainer = SFTTrainer(model=module, args=settings, train_dataset=dataset, processing_class=processor)
        counted = _counted(trainer)
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            trainer.train()
        steps = counted[WARM_UP:]
        return Measured(
            seconds=counted[-1][2] - counted[WARM_UP - 1][2],
            useful_tokens=sum(real for real, _, _ in steps),
            padding_tokens=sum(every - real for real, every, _ in steps),
            tokens_of_all_steps=sum(real for real, _, _ in counted),
        )


def _uniform(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every content as a list of items with the same keys, as datasets wants it."""
    return [
        {
            "role": one["role"],
            "content": [
                {"type": item["type"], "text": item.get("text", "")}
                for item in (
                    one["content"] if isinstance(one["content"], list) else [{"type": "text", "text": one["content"]}]
                )
            ],
        }
        for one in messages
    ]


def _counted(trainer: Any) -> list[tuple[int, int, float]]:
    """(real tokens, all tokens, moment of the end) of each step: a callback notes the end, after the optimizer."""
    from transformers import TrainerCallback

    counts: list[tuple[int, int]] = []
    ended: list[tuple[int, int, float]] = []
    step = trainer.training_step

    def count(module: Any, inputs: Any, *rest: Any, **more: Any) -> Any:
        counts.append((int(inputs["attention_mask"].sum()), inputs["input_ids"].numel()))
        return step(module, inputs, *rest, **more)

    class Ends(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ended.append((*counts[-1], time.perf_counter()))

    trainer.training_step = count
    trainer.add_callback(Ends())
    return ended


def bench_trl(scratch: Path, model: Path, packages: Path, row_tokens: int) -> None:
    """Two lines: packed and unpacked against TRL."""
    data = scratch / f"data-{row_tokens}"
    write_samples(data, row_tokens)
    packed = write_toml(scratch / f"packed-{row_tokens}", data, model, length=row_tokens, packing=True, rows=1)
    plain = write_toml(scratch / f"plain-{row_tokens}", data, model, length=row_tokens, packing=False, rows=BATCH)
    build_mix(packed)
    peer = Trl(packages, data, model, scratch / "trl")
    measured: dict[str, list[Measured]] = {"packed": [], "plain": [], "trl": []}
    for number in range(ROUNDS):
        measured["trl"].append(peer.train())
        measured["packed"].append(train_ours(packed, run_number=number))
        measured["plain"].append(train_ours(plain, run_number=number))
    totals = {one.tokens_of_all_steps for several in measured.values() for one in several}
    assert len(totals) == 1, f"not the same samples on both sides: {totals}"
    of_trl = statistics.median(one.speed for one in measured["trl"])
    for name in ("packed", "plain"):
        speed = statistics.median(one.speed for one in measured[name])
        _print(
            figure=f"training, rows of {row_tokens}, {name}", unit="useful tokens/s", ours=speed, peer_name=TRL[0],
            peer=of_trl, ratio=speed / of_trl, goal=1.5 if name == "packed" else 1.1,
            padding_share=measured[name][0].padding_share, peer_padding_share=measured["trl"][0].padding_share,
            unfilled_share_of_rows=unfilled_share(packed.parent / "run-0", row_tokens) if name == "packed" else None,
            rounds=ROUNDS, all_ratios=[
                round(one.speed / other.speed, 2) for one, other in zip(measured[name], measured["trl"], strict=True)
            ],
        )  # fmt: skip


def bench_bare_loop(scratch: Path, model: Path) -> None:
    """One line: a step of ours against forward, backward and AdamW alone."""
    data = scratch / "data-4096"
    if not data.exists():
        write_samples(data, 4096)
    toml = write_toml(scratch / "bare", data, model, length=4096, packing=True, rows=2)
    build_mix(toml)
    with _ready_run(toml) as (ours, steps, reader, watch):
        bare = _bare_step(ours, steps[0])
        costs, cpu_costs, seconds = [], [], []
        for number in range(BARE_ROUNDS + 1):
            began, cpu_began = time.perf_counter(), time.process_time()
            bare()
            middle, cpu_middle = time.perf_counter(), time.process_time()
            reader.add(run.take_step(ours, iter(steps[:1]), watch))
            ended, cpu_ended = time.perf_counter(), time.process_time()
            if number:
                cpu_costs.append((cpu_ended - cpu_middle) / (cpu_middle - cpu_began) - 1)
                costs.append((ended - middle) / (middle - began) - 1)
                seconds.append(middle - began)
    _print(
        figure="a step of the loop", unit="s", ours=statistics.median(seconds) * (1 + statistics.median(costs)),
        peer_name="bare loop", peer=statistics.median(seconds), cost=statistics.median(costs), goal=0.05,
        cost_in_cpu_time=statistics.median(cpu_costs),
        rounds=BARE_ROUNDS, all_costs=[round(one, 4) for one in costs],
    )  # fmt: skip


@contextmanager
def _ready_run(toml: Path) -> Iterator[Any]:
    """A run as ``run_training`` holds it when its steps begin, the first steps encoded."""
    captured: dict[str, Any] = {}
    config = load_config(toml)
    real = run._train

    def hold(loaded: Any, _stop: Any) -> int:
        captured["run"] = loaded
        steps = run.steps_of_run(loaded, run.Place())
        captured["steps"] = [next(steps) for _ in range(2)]
        steps.close()
        return 0

    run._train = hold
    try:
        with redirect_stderr(StringIO()):
            run.run_training(config, resume=False)
    finally:
        run._train = real
    held = captured["run"]
    held.output_dir.mkdir(parents=True, exist_ok=True)
    reports = run.open_reports(config, held.output_dir, total_steps=10**6)
    log = SampleLossLog(held.output_dir, attempt=1, steps_per_write=10)
    with closing(held.store), redirect_stderr(StringIO()), reports as shown, log as lines:
        watch = run.RankWatch(held.output_dir, held.ranks, stuck_after_seconds=0)
        yield held, captured["steps"], run.StepReader(held, shown, lines, watch, attempt=1), watch


def _bare_step(held: Any, step: Any) -> Callable[[], None]:
    (batch,) = step.batches
    module = held.trainer.module
    optimizer = torch.optim.AdamW([one for one in module.parameters() if one.requires_grad], lr=1e-3, fused=True)

    def take() -> None:
        optimizer.zero_grad(set_to_none=True)
        hidden_BTD = held.family.hidden_states(module, batch)
        logits_NV = held.family.output_layer(module)(hidden_BTD.flatten(0, 1)[batch.places_N])
        cross_entropy(logits_NV, batch.targets_N).backward()
        optimizer.step()

    return take


def _print(**values: Any) -> None:
    rounded = {name: float(f"{value:.4g}") if isinstance(value, float) else value for name, value in values.items()}
    print(json.dumps({**rounded, "torch": torch.__version__, "cores": os.cpu_count()}), flush=True)


def main() -> None:
    """All lines; with ``--bare`` only that of the bare loop."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    torch.set_num_threads(1)
    packages = peer_folder(TRL)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        make_tiny("qwen3_vl", scratch / "model")
        for row_tokens in () if "--bare" in sys.argv else NUM_SAMPLES:
            bench_trl(scratch, scratch / "model", packages, row_tokens)
        bench_bare_loop(scratch, scratch / "model")


if __name__ == "__main__":
    main()
