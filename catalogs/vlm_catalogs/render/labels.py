"""Turns and labels of a rendered conversation, from its token ids alone.

Supervised is what the model would write itself: an assistant turn from the end of its prompt to its end-of-turn token,
which is included; the newline after it is not. The prompt of a turn is its header (``<|im_start|>assistant\\n``) and
whatever more the template writes ahead of an answer: what ``add_generation_prompt`` gives, with thinking on or off, and
an empty think block, since a model is never to learn to think nothing. The longest of these that a turn begins with is
taken. No text is searched: turns begin at the header's special token, which no text of a sample may hold (see chat.py).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlm_catalogs.errors import ConfigError
from vlm_catalogs.render.chat import ROLES
from vlm_catalogs.render.rendered import IGNORED, Span
from vlm_catalogs.render.settings import RenderProblem

ASSISTANT = "assistant"
EMPTY_THOUGHTS = ("<think></think>", "<think>\n</think>\n", "<think>\n\n</think>\n\n")

Encode = Callable[[str], list[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnMarks:
    """The token ids that turns are found by."""

    turn_start: int
    turn_end: int
    roles: dict[str, tuple[int, ...]]
    """Role -> ids that follow ``turn_start``, without the newline: it may merge with newlines of the content."""
    prompts: tuple[tuple[int, ...], ...]
    """Ids from ``turn_start`` that an assistant turn may begin with and that are not learned; longest first."""

    def prompt_length(self, turn: Sequence[int]) -> int:
        """How many ids of an assistant turn are its prompt."""
        for prompt in self.prompts:
            if tuple(turn[: len(prompt)]) == prompt:
                return len(prompt)
        # The content begins with newlines that merged with the header's: that token is still the header's.
        return 1 + len(self.roles[ASSISTANT]) + 1


def find_turn_marks(
    encode: Encode, *, generation_prompts: Sequence[str], answer_end: str, special_ids: frozenset[int], model: str
) -> TurnMarks:
    """The marks of a checkpoint, from what its template writes around an answer.

    Raises ConfigError for a template whose turns do not begin with ``<special token>assistant<newline>`` and end with a
    special token: its labels could only be guessed.
    """
    headers = {prompt[: prompt.find("\n") + 1] for prompt in generation_prompts}
    header = headers.pop() if len(headers) == 1 else ""
    ids, end = encode(header), encode(answer_end)
    core, newline = encode(header.rstrip("\n")), encode("\n")
    if not (ASSISTANT in header and ids[0] in special_ids and ids == core + newline and end and end[0] in special_ids):
        raise ConfigError(
            f"{model}: the chat template must begin an answer with '<special token>assistant' and a newline and end it "
            f"with a special token; it writes {generation_prompts!r} and {answer_end!r}"
        )
    prompts = {*generation_prompts, header, *(header + thought for thought in EMPTY_THOUGHTS)}
    return TurnMarks(
        turn_start=ids[0],
        turn_end=end[0],
        roles={role: tuple(encode(header.rstrip("\n").replace(ASSISTANT, role))[1:]) for role in ROLES},
        prompts=tuple(sorted((tuple(encode(prompt)) for prompt in prompts), key=lambda prompt: -len(prompt))),
    )


def find_spans(ids_T: NDArray[np.int64], marks: TurnMarks, *, num_assistant_turns: int) -> tuple[Span, ...]:
    """The turns of a sequence in order.

    Raises RenderProblem("assistant_turns_differ") unless there are as many assistant turns as assistant messages.
    """
    starts = np.flatnonzero(ids_T == marks.turn_start).tolist()
    ends = np.flatnonzero(ids_T == marks.turn_end).tolist()
    spans, next_end = [], 0
    for start, limit in zip(starts, [*starts[1:], len(ids_T)], strict=True):
        while next_end < len(ends) and ends[next_end] < start:
            next_end += 1
        if next_end == len(ends) or ends[next_end] >= limit:
            raise RenderProblem("turn_without_end", f"the turn at token {start} has no end-of-turn token")
        spans.append(_span(ids_T, start, ends[next_end] + 1, marks))
    found = sum(span.role == ASSISTANT for span in spans)
    if found != num_assistant_turns:
        raise RenderProblem(
            "assistant_turns_differ", f"the template shows {found} of {num_assistant_turns} assistant messages"
        )
    return tuple(spans)


def _span(ids_T: NDArray[np.int64], begin: int, end: int, marks: TurnMarks) -> Span:
    turn = ids_T[begin : min(end, begin + len(marks.prompts[0]) + 1)].tolist()
    role = next((role for role, ids in marks.roles.items() if tuple(turn[1 : 1 + len(ids)]) == ids), "other")
    supervised = min(begin + marks.prompt_length(turn), end - 1) if role == ASSISTANT else end
    return Span(role=role, begin=begin, end=end, supervised_begin=supervised, supervised_end=end)


def label_turns(ids_T: NDArray[np.int64], spans: Sequence[Span], *, media_ids: Sequence[int]) -> NDArray[np.int64]:
    """The ids where supervised and -100 elsewhere; media tokens are never supervised."""
    labels_T = np.full_like(ids_T, IGNORED)
    for span in spans:
        labels_T[span.supervised_begin : span.supervised_end] = ids_T[span.supervised_begin : span.supervised_end]
    for token in media_ids:
        labels_T[ids_T == token] = IGNORED
    return labels_T
