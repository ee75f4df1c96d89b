"""What a model family is to the loop: how samples become tensors, and how a batch becomes logits.

Tensor names carry their shape: B rows of a micro-batch, T tokens, V vocabulary, N patches or frames, 3 position rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol

import torch
from torch import Tensor, nn

from vlm_catalogs.render.rendered import IGNORED, Rendered
from vlm_catalogs.sample import Sample

if TYPE_CHECKING:
    from vlm_catalogs.config import Config


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
    """One sample as tensors, still alone: a row of a batch."""

    dataset: str
    sample_id: str
    input_ids_T: Tensor
    labels_T: Tensor
    media: tuple[EncodedMedium, ...]
    """In placeholder order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A micro-batch, padded on the right. Attention is causal, so real tokens never see padding and need no mask."""

    datasets: tuple[str, ...]
    sample_ids: tuple[str, ...]
    lengths: tuple[int, ...]
    """Real tokens of each row."""
    input_ids_BT: Tensor
    labels_BT: Tensor
    """-100 where nothing is supervised, padding included; not shifted."""
    position_ids_3BT: Tensor | None
    """Temporal, height and width positions (M-RoPE); None for families without rotary positions."""
    media: tuple[EncodedMedium, ...]
    """Of all rows, in placeholder order."""

    @property
    def num_tokens(self) -> int:
        """Real tokens, without padding."""
        return sum(self.lengths)

    @property
    def is_real_BT(self) -> Tensor:
        """Where the tokens of samples stand: False for padding and for rows that are empty."""
        lengths = [n if name else 0 for n, name in zip(self.lengths, self.sample_ids, strict=True)]
        device = self.input_ids_BT.device
        places_T = torch.arange(self.input_ids_BT.shape[1], device=device)
        return places_T[None] < torch.tensor(lengths, device=device)[:, None]

    @property
    def num_padding(self) -> int:
        """Padding tokens."""
        return self.input_ids_BT.numel() - self.num_tokens

    @property
    def num_supervised_tokens(self) -> int:
        """Tokens that the loss counts: labels that are not -100, the first token of a row apart."""
        return int((self.labels_BT[:, 1:] != IGNORED).sum())

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch with its tensors on ``device``."""
        positions = self.position_ids_3BT
        return replace(
            self,
            input_ids_BT=self.input_ids_BT.to(device, non_blocking=True),
            labels_BT=self.labels_BT.to(device, non_blocking=True),
            position_ids_3BT=None if positions is None else positions.to(device, non_blocking=True),
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

    def collate(self, samples: Sequence[EncodedSample]) -> Batch:
        """One micro-batch of the samples, in order."""
        ...

    def logits(self, module: nn.Module, batch: Batch) -> Tensor:
        """The logits (B, T, V). Every trainable parameter takes part, whatever the media of the batch."""
        ...


def pad_rows(rows: Sequence[Tensor], value: int) -> Tensor:
    """Rows (T,) of several lengths as one tensor (B, T), filled up on the right with ``value``."""
    return nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=value)


def collate_rows(samples: Sequence[EncodedSample], *, pad_id: int, positions_3T: Sequence[Tensor] | None) -> Batch:
    """The batch of ``samples``, with the position ids of each where the family has them."""
    positions = None
    if positions_3T is not None:
        positions = torch.stack([pad_rows([rows[axis] for rows in positions_3T], 0) for axis in range(3)])
    return Batch(
        datasets=tuple(sample.dataset for sample in samples),
        sample_ids=tuple(sample.sample_id for sample in samples),
        lengths=tuple(len(sample.input_ids_T) for sample in samples),
        input_ids_BT=pad_rows([sample.input_ids_T for sample in samples], pad_id),
        labels_BT=pad_rows([sample.labels_T for sample in samples], IGNORED),
        position_ids_3BT=positions,
        media=tuple(medium for sample in samples for medium in sample.media),
    )


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
