"""What a model answers to a sample, beside what the sample says: the prompt is all before its last assistant turn."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from vlm_catalogs.errors import DataError
from vlm_catalogs.render import Renderer
from vlm_catalogs.render.rendered import IGNORED, Rendered
from vlm_catalogs.sample import Sample
from vlm_train.encode import UndecodableMedia
from vlm_train.inspect_sample import shortened
from vlm_train.models.family import EncodedMedium, EncodedSample, Family
from vlm_train.writer import Sampling, Writer


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer beside its reference."""

    dataset: str
    sample_id: str
    prompt: str
    """As the model reads it; three are left of a token that is repeated, such as a medium's placeholder."""
    answer: str
    """Without its end of turn."""
    reference: str
    """The last assistant turn of the sample."""
    num_tokens: int
    """Of the answer, its end of turn included."""
    is_whole: bool
    """False where it was cut off after ``max_new_tokens``."""
    problem: str | None = None
    """Why media were shown blank."""

    @property
    def name(self) -> str:
        """``dataset/sample_id``, for people."""
        return f"{self.dataset}/{self.sample_id}"

    def as_line(self) -> dict[str, Any]:
        """The JSON object of it; ``problem`` only where there is one."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def answer_sample(
    sample: Sample, rendered: Rendered, *, renderer: Renderer, family: Family, writer: Writer, how: Sampling
) -> Answer:
    """What the model of ``writer`` answers to ``sample``, whose first conversation is ``rendered``.

    All ranks call it together. Raises DataError for a sample without an assistant turn.
    """
    begin, end = _last_answer(sample, rendered)
    problem = None
    try:
        encoded = family.encode(sample, rendered)
    except UndecodableMedia as error:
        encoded, problem = family.encode(sample, rendered, blank=True), str(error)
    prompt = _cut(encoded, begin, renderer)
    stop_ids = stop_ids_of(writer.whole.module, renderer)
    written = writer.write(prompt, family, stop_ids=stop_ids, how=how)
    return Answer(
        dataset=sample.dataset,
        sample_id=sample.sample_id,
        prompt=renderer.decode(shortened(prompt.input_ids_T.tolist())),
        answer=_text(written, stop_ids, renderer),
        reference=_text(rendered.input_ids_T[begin:end].tolist(), stop_ids, renderer),
        num_tokens=len(written),
        is_whole=written[-1] in stop_ids,
        problem=problem,
    )


def stop_ids_of(module: nn.Module, renderer: Renderer) -> frozenset[int]:
    """The tokens that end an answer: that of the chat template, and those of the checkpoint's generation_config."""
    said = getattr(getattr(module, "generation_config", None), "eos_token_id", None)
    return frozenset([renderer.token_ids.turn_end, *([said] if isinstance(said, int) else said or ())])


def _last_answer(sample: Sample, rendered: Rendered) -> tuple[int, int]:
    """Where the last assistant turn begins, its header apart, and ends."""
    turns = [span for span in rendered.spans if span.role == "assistant"]
    if not turns:
        raise DataError(f"{sample.dataset}/{sample.sample_id}: has no assistant turn, so there is nothing to answer")
    return turns[-1].supervised_begin, turns[-1].supervised_end


def _cut(encoded: EncodedSample, length: int, renderer: Renderer) -> EncodedSample:
    """The first ``length`` tokens with their media."""
    ids_T = encoded.input_ids_T[:length]
    return replace(
        encoded,
        input_ids_T=ids_T,
        labels_T=torch.full_like(ids_T, IGNORED),
        media=_media_within(encoded.media, ids_T, renderer),
    )


def _media_within(media: Sequence[EncodedMedium], ids_T: Tensor, renderer: Renderer) -> tuple[EncodedMedium, ...]:
    placeholders = torch.tensor([renderer.token_ids.image, renderer.token_ids.video])
    num_left, found = int(torch.isin(ids_T, placeholders).sum()), []
    for medium in media:
        num_left -= medium.num_tokens
        if num_left < 0:
            break
        found.append(medium)
    return tuple(found)


def _text(ids: Sequence[int], stop_ids: frozenset[int], renderer: Renderer) -> str:
    return renderer.decode(ids[:-1] if ids and ids[-1] in stop_ids else ids)
