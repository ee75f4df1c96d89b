"""What a model family is to the loop: how samples become tensors, and how a batch becomes hidden states.

Tensor names carry their shape: B rows of a micro-batch, T tokens, D width, V vocabulary, 3
position rows; N patches or frames of a medium, supervised tokens of a batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor, nn
from transformers import Cache, DynamicCache

from vlm_catalogs.render.rendered import IGNORED, Rendered
from vlm_catalogs.sample import Sample
from vlm_train.models.segments import Segments, segments_of

if TYPE_CHECKING:
    from vlm_catalogs.config import Config


TokenCache = Cache
"""What layers keep of the tokens so far."""


def empty_cache(module: nn.Module) -> TokenCache:
    """A cache for the kinds of layers that ``module`` has."""
    return DynamicCache(config=module.config)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedMedium:
    """One image or video as the vision tower takes it."""

    kind: Literal["image", "video"]
    pixels: Tensor
    """Patches (N, values), or frames (N, 3, height, width) for Omni videos."""
    grid: tuple[int, int, int]
    """(temporal, height, width) in patches."""
    num_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedSample:
    """One sample as tensors, still alone."""

    dataset: str
    sample_id: str
    input_ids_T: Tensor
    labels_T: Tensor
    media: tuple[EncodedMedium, ...]
    """In placeholder order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A micro-batch of rows, each of one sample or several packed, padded on the right.

    What is asked of every batch is worked out where it is made, on the CPU: the loop never waits for the device.
    """

    datasets: tuple[str, ...]
    """Of each sample, row after row; so are the next three."""
    sample_ids: tuple[str, ...]
    """Empty for a row that only fills the step."""
    lengths: tuple[int, ...]
    """Tokens of each sample."""
    rows: tuple[int, ...]
    """The row that each sample stands in."""
    input_ids_BT: Tensor
    labels_BT: Tensor
    """-100 where nothing is supervised, padding and the first token of each sample included; not shifted."""
    places_N: Tensor
    """Of each supervised token: the place in the flattened (B, T) whose hidden state predicts it."""
    targets_N: Tensor
    """Its id."""
    samples_N: Tensor
    """The sample that it belongs to."""
    position_ids_3BT: Tensor | None
    """Temporal, height and width positions (M-RoPE), from 0 in each sample; None for families without."""
    segments: Segments | None
    """None where each row is one sample: attention is causal, so real tokens never see the padding after them."""
    media: tuple[EncodedMedium, ...]
    """Of all rows, in placeholder order."""
    is_real_BT: Tensor
    """Where the tokens of samples stand: False for padding and for rows that are empty."""

    @property
    def num_tokens(self) -> int:
        """Real tokens: without padding and empty rows."""
        return sum(length for length, name in zip(self.lengths, self.sample_ids, strict=True) if name)

    @property
    def num_padding(self) -> int:
        """Tokens of padding and of empty rows."""
        return self.input_ids_BT.numel() - self.num_tokens

    @property
    def num_supervised_tokens(self) -> int:
        """Tokens that the loss counts: labels that are not -100, the first token of a sample apart."""
        return len(self.targets_N)

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch with its tensors on ``device``."""
        names = ("input_ids_BT", "labels_BT", "places_N", "targets_N", "samples_N", "is_real_BT")
        moved = {name: getattr(self, name).to(device, non_blocking=True) for name in names}
        positions, segments = self.position_ids_3BT, self.segments
        return replace(
            self,
            **moved,
            position_ids_3BT=None if positions is None else positions.to(device, non_blocking=True),
            segments=None if segments is None else segments.to(device),
            media=tuple(replace(medium, pixels=medium.pixels.to(device, non_blocking=True)) for medium in self.media),
        )


class Family(Protocol):
    """One kind of model. Holds the processor of one checkpoint; encode and collate run in any process."""

    model_type: str

    def load(self, model: str, *, dtype: torch.dtype, device: torch.device | str, config: "Config") -> nn.Module:
        """The module with every weight of the checkpoint.

        Raises ConfigError where no weights are found, DataError where weights are missing or do not fit.
        """
        ...

    def encode(self, sample: Sample, rendered: Rendered, *, blank: bool = False) -> EncodedSample:
        """The tensors of one sample. ``blank`` keeps the planned shape with black frames and no labels.

        Raises UndecodableMedia (vlm_train.encode) where a medium does not decode.
        """
        ...

    def prepare(self, module: nn.Module) -> nn.Module:
        """``module`` changed in place into how it trains here; ``load`` does so itself."""
        ...

    def with_config(self, config: Any) -> "Family":
        """The same family for a model of ``config``, whose ids of media tokens may differ."""
        ...

    def probe_medium(self, config: Any) -> EncodedMedium:
        """The smallest image that a model of ``config`` takes, of a single token."""
        ...

    def collate(self, rows: Sequence[Sequence[EncodedSample]]) -> Batch:
        """One micro-batch of the rows, in order; a row of several samples is packed."""
        ...

    def hidden_states(self, module: nn.Module, batch: Batch, *, cache: TokenCache | None = None) -> Tensor:
        """What the output layer takes (B, T, D). Every trainable parameter takes part, whatever the media.

        ``cache`` takes what the tokens after these ask for.
        """
        ...

    def next_hidden_states(
        self, module: nn.Module, ids_BT: Tensor, *, positions_3BT: Tensor | None, cache: TokenCache
    ) -> Tensor:
        """As ``hidden_states``, of text that goes on where those in ``cache`` ended; the vision tower is not called."""
        ...

    def output_layer(self, module: nn.Module) -> nn.Module:
        """The layer that makes logits (..., V) of hidden states (..., D)."""
        ...

    def logits(self, module: nn.Module, batch: Batch) -> Tensor:
        """The logits (B, T, V): for looking at a model. Training takes them chunk by chunk."""
        ...


def pad_rows(rows: Sequence[Tensor], value: int) -> Tensor:
    """Rows (T,) of several lengths as one tensor (B, T), filled up on the right with ``value``."""
    return nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=value)


def collate_rows(
    rows: Sequence[Sequence[EncodedSample]],
    *,
    pad_id: int,
    positions_3T: Callable[[EncodedSample], Tensor] | None,
) -> Batch:
    """The batch of ``rows``, with the position ids of each sample where the family has them."""
    samples = [sample for row in rows for sample in row]
    lengths = [[len(sample.input_ids_T) for sample in row] for row in rows]
    labels_BT = pad_rows([torch.cat([_first_ignored(sample.labels_T) for sample in row]) for row in rows], IGNORED)
    samples_BT = pad_rows(_numbers(lengths), -1)
    places_N = (labels_BT.flatten() != IGNORED).nonzero().flatten()
    positions = None
    if positions_3T is not None:
        by_row = [torch.cat([positions_3T(sample) for sample in row], dim=1) for row in rows]
        positions = torch.stack([pad_rows([row_3T[axis] for row_3T in by_row], 0) for axis in range(3)])
    is_real = torch.tensor([bool(sample.sample_id) for sample in samples] + [False])
    return Batch(
        datasets=tuple(sample.dataset for sample in samples),
        sample_ids=tuple(sample.sample_id for sample in samples),
        lengths=tuple(length for row in lengths for length in row),
        rows=tuple(number for number, row in enumerate(rows) for _ in row),
        input_ids_BT=pad_rows([torch.cat([sample.input_ids_T for sample in row]) for row in rows], pad_id),
        labels_BT=labels_BT,
        places_N=places_N - 1,
        targets_N=labels_BT.flatten()[places_N],
        samples_N=samples_BT.flatten()[places_N],
        position_ids_3BT=positions,
        segments=segments_of(lengths) if len(samples) > len(rows) else None,
        media=tuple(medium for sample in samples for medium in sample.media),
        is_real_BT=is_real[samples_BT],
    )


def _first_ignored(labels_T: Tensor) -> Tensor:
    """The labels without the first token's: what stands before it is another sample, or nothing."""
    return torch.cat([torch.full_like(labels_T[:1], IGNORED), labels_T[1:]])


def _numbers(lengths: Sequence[Sequence[int]]) -> list[Tensor]:
    """Row by row, the number of the sample that each token belongs to, counted over all rows."""
    numbers = count()
    return [torch.cat([torch.full((length,), next(numbers)) for length in row]) for row in lengths]


def encoded_sample(
    sample: Sample, rendered: Rendered, media: Sequence[EncodedMedium], *, placeholder_ids: Sequence[int], blank: bool
) -> EncodedSample:
    """The sample's token tensors beside its media; a placeholder without its feature is our own mistake, found here."""
    input_ids_T = torch.from_numpy(rendered.input_ids_T).long()
    labels_T = torch.from_numpy(rendered.labels_T).long()
    num_placeholders = int(torch.isin(input_ids_T, torch.tensor(placeholder_ids)).sum())
    num_features = sum(medium.num_tokens for medium in media)
    if num_placeholders != num_features:
        raise AssertionError(
            f"{sample.dataset}/{sample.sample_id}: {num_placeholders} placeholder tokens for {num_features} features"
        )
    return EncodedSample(
        dataset=sample.dataset,
        sample_id=sample.sample_id,
        input_ids_T=input_ids_T,
        labels_T=torch.full_like(labels_T, IGNORED) if blank else labels_T,
        media=tuple(media),
    )


def check_grid(sample: Sample, medium_name: str, *, planned: tuple[int, ...], encoded: tuple[int, ...]) -> None:
    """Stop where the pixels do not fill the patch grid that the tokens were counted from: our own mistake."""
    if planned != encoded:
        raise AssertionError(
            f"{sample.dataset}/{sample.sample_id}: {medium_name} was planned as {planned} patches, encoded as {encoded}"
        )
