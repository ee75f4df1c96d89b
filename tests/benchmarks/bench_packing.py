"""Useful tokens a second of training steps on a tiny Qwen3-VL, one thread: packed rows against their peers of one run.

Peers: the same samples padded, four to a micro-batch in random order; the same packed rows under the dense causal mask
that transformers builds from text positions. Lengths are log-normal, mean 0.2 of the row; every third sample has a
picture. Medians of ROUNDS interleaved rounds after one to warm up. One JSON line per figure.
"""

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from vlm_train.loop import Precision, Trainer
from vlm_train.make_tiny import make_tiny
from vlm_train.models import load_family
from vlm_train.models.family import Batch, EncodedMedium, EncodedSample
from vlm_train.optimizer import OptimizerSettings, build_optimizer
from vlm_train.shard_parameters import WholeForward

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
ROWS = 4
SIDE = 8
Step = Callable[[], None]


def samples_of(row_tokens: int, num_rows: int, image_id: int) -> list[EncodedSample]:
    """Samples that fill about ``num_rows`` rows."""
    random = np.random.default_rng(0)
    lengths: list[int] = []
    while sum(lengths) < num_rows * row_tokens:
        lengths.append(int(np.clip(random.lognormal(np.log(0.2 * row_tokens) - 0.18, 0.6), 32, row_tokens)))
    return [_sample(number, length, image_id if number % 3 == 0 else None) for number, length in enumerate(lengths)]


def _sample(number: int, length: int, image_id: int | None) -> EncodedSample:
    generator = torch.Generator().manual_seed(number)
    ids_T = torch.randint(10, 200, (length,), generator=generator)
    labels_T = torch.where(torch.arange(length) > length // 2, ids_T, -100)
    media = []
    if image_id is not None:
        num_tokens = SIDE * SIDE // 4
        ids_T[2 : 2 + num_tokens] = image_id
        labels_T[: 2 + num_tokens] = -100
        pixels = torch.randn(SIDE * SIDE, 3 * 2 * 16 * 16, generator=generator)
        media = [EncodedMedium(kind="image", pixels=pixels, grid=(1, SIDE, SIDE), num_tokens=num_tokens)]
    return EncodedSample(
        dataset="bench", sample_id=str(number), input_ids_T=ids_T, labels_T=labels_T, media=tuple(media)
    )


def packed_rows(samples: Sequence[EncodedSample], row_tokens: int) -> list[list[EncodedSample]]:
    """First fit, longest first: the planner has its own benchmark."""
    rows: list[list[EncodedSample]] = []
    for sample in sorted(samples, key=lambda one: -len(one.input_ids_T)):
        fits = (row for row in rows if sum(len(one.input_ids_T) for one in [*row, sample]) <= row_tokens)
        row = next(fits, None)
        if row is None:
            rows.append(row := [])
        row.append(sample)
    return rows


class DenseMask:
    """The family, but packed rows go through sdpa with the mask that transformers builds of four rows of positions."""

    def __init__(self, family: Any) -> None:
        self._family = family

    def __getattr__(self, name: str) -> Any:
        return getattr(self._family, name)

    def hidden_states(self, module: Any, batch: Batch) -> torch.Tensor:
        assert batch.position_ids_3BT is not None
        if batch.segments is None:
            return self._family.hidden_states(module, batch)  # type: ignore[no-any-return]
        text_BT = torch.zeros_like(batch.input_ids_BT)
        for row, lengths in enumerate(batch.segments.lengths):
            text_BT[row] = torch.cat([torch.arange(length) for length in lengths])
        positions = torch.cat([text_BT[None], batch.position_ids_3BT])
        text_config = module.config.get_text_config()
        ours, text_config._attn_implementation = text_config._attn_implementation, "sdpa"
        try:
            return self._family.hidden_states(module, replace(batch, segments=None, position_ids_3BT=positions))  # type: ignore[no-any-return]
        finally:
            text_config._attn_implementation = ours


def trainer_of(folder: Path, family: Any) -> Trainer:
    policy = SimpleNamespace(trust_remote_code=False, model_revision=None, model_safetensor_path=None)
    config: Any = SimpleNamespace(policy=policy)
    module = family.load(str(folder), dtype=torch.float32, device="cpu", config=config).train()
    settings = OptimizerSettings(
        lr={"default": 1e-4}, impl="for-loop", weight_decay=0.0, betas=(0.9, 0.999), epsilon=1e-8, grad_norm_clip=1.0
    )
    optimizer = build_optimizer(module.named_parameters(), settings)
    precision = Precision(master=torch.float32, compute=torch.float32)
    return Trainer(WholeForward(module, family), optimizer, precision=precision, grad_norm_clip=1.0)


def interleaved(steps: dict[str, Step], rounds: int) -> dict[str, list[float]]:
    """Seconds of every step in each round, one warm-up round left out."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            if number:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def bench_rows(folder: Path, row_tokens: int) -> None:
    family: Any = load_family(str(folder), "qwen3_vl")
    samples = samples_of(row_tokens, ROWS, family.placeholder_ids[0])
    rows = packed_rows(samples, row_tokens)
    packed = [family.collate([row]) for row in rows]
    order = np.random.default_rng(1).permutation(len(samples))
    padded = [
        family.collate([[samples[index]] for index in four]) for four in np.array_split(order, -(-len(order) // 4))
    ]
    ours, dense = trainer_of(folder, family), trainer_of(folder, DenseMask(family))
    seconds = interleaved(
        {
            "packed": lambda: take(ours, packed),
            "padded": lambda: take(ours, padded),
            "dense mask": lambda: take(dense, packed),
        },
        ROUNDS,
    )
    useful = sum(batch.num_tokens for batch in packed)
    speed = {name: useful / statistics.median(times) for name, times in seconds.items()}
    padding = {name: _padding(batches) for name, batches in (("packed", packed), ("padded", padded))}
    for peer in ("padded", "dense mask"):
        print_figure(
            figure=f"training on packed rows of {row_tokens}", unit="useful tokens/s", ours=speed["packed"],
            peer_name=peer, peer=speed[peer], ratio=speed["packed"] / speed[peer],
            padding_share=padding["packed"], peer_padding_share=padding.get(peer, padding["packed"]),
        )  # fmt: skip


def take(trainer: Trainer, batches: Sequence[Batch]) -> None:
    trainer.take_step(batches).result()


def _padding(batches: Sequence[Batch]) -> float:
    padding = sum(batch.num_padding for batch in batches)
    return padding / (padding + sum(batch.num_tokens for batch in batches))


def print_figure(**values: Any) -> None:
    rounded = {name: float(f"{value:.4g}") if isinstance(value, float) else value for name, value in values.items()}
    print(json.dumps({**rounded, "rounds": ROUNDS}), flush=True)


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        make_tiny("qwen3_vl", folder)
        for row_tokens in (1024, 4096):
            bench_rows(folder, row_tokens)


if __name__ == "__main__":
    main()
