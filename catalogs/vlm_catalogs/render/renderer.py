"""From messages and media facts to token ids, labels and media plans: the one way, for measuring and for training."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from vlm_catalogs import hashing, json_text
from vlm_catalogs.errors import ConfigError
from vlm_catalogs.render import labels
from vlm_catalogs.render.chat import (
    ChatTemplate,
    Message,
    SpecialText,
    check_system_prompt,
    media_items,
    prepare_messages,
    structural_tokens,
)
from vlm_catalogs.render.checkpoint_files import CheckpointFiles, read_checkpoint_files
from vlm_catalogs.render.families import MODEL_TYPES, OMNI, media_planner
from vlm_catalogs.render.length_policy import Shrinking, cut_text, shrink_media, shrunken_options
from vlm_catalogs.render.media_options import read_media_options
from vlm_catalogs.render.planner import MediaPlanner, Placeholder
from vlm_catalogs.render.rendered import MediaPlan, Rendered
from vlm_catalogs.render.settings import RenderProblem, RenderSettings, media_budget
from vlm_catalogs.sample import MediaFacts

RENDER_VERSION = 4
"""Raised when the same inputs give other ids, labels, plans or columns of lengths; part of every fingerprint."""

UNHASHED = ("processor_class", "auto_map", "_name_or_path", "name_or_path")
"""Keys of processor files that say where they came from, not what they do."""
MAX_IMAGE_PIXELS = 178_956_970
"""Pillow takes a larger image for a decompression bomb and does not decode it (PIL/Image.py: 2 x MAX_IMAGE_PIXELS)."""
OLDER_ID_NAMES = {"image_token_id": "img_context_token_id", "video_token_id": "video_context_token_id"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenIds:
    """Ids that the model side needs by name."""

    image: int
    """Repeated for an image's features."""
    video: int
    """Repeated for a video's features; Omni uses the image's."""
    turn_end: int
    pad: int
    """Fills rows; never a label. The tokenizer's own, else end of turn."""


class Renderer:
    """Renders conversations for one checkpoint and one kind of dataset. Holds no torch, opens no media."""

    def __init__(self, files: CheckpointFiles, settings: RenderSettings) -> None:
        self.model_type = files.model_type
        self.settings = settings
        self._tokenizer = _read_tokenizer(files)
        self._template = ChatTemplate(files.chat_template, files.special_tokens)
        self._planner = media_planner(files)
        self._bos = files.special_tokens.get("bos_token")
        added = self._tokenizer.get_added_tokens_decoder()
        special = {number: token.content for number, token in added.items() if token.special}
        self._special = self._find_special_text(files, special)
        check_system_prompt(settings.system_prompt, self._special)
        self._marks = self._find_marks(files.model, frozenset(special))
        self.token_ids = self._find_token_ids(files)
        end = self.encode_text(self._planner.tokens.end)
        self._media_ids = (self.token_ids.image, self.token_ids.video, *(end if len(end) == 1 else ()))
        """Tokens of media, and those that close them."""
        image, video = re.escape(self._planner.tokens.image), self._planner.video_pattern
        self._media_pattern = re.compile(f"(?P<video>{video})|(?P<image>{image})")
        self.description = _describe(files, settings, self._planner, refused=self._special.forbidden)
        self.fingerprint = hashing.joined_hash([json_text.dumps(self.description)])

    def render(self, messages: Sequence[Message], media: Sequence[MediaFacts]) -> Rendered:
        """One conversation as the model gets it; ``media`` may hold more than it refers to, in any order.

        One that is longer than a row is shortened as the length policy says; it stays whole where that does not help.
        Raises RenderProblem for what cannot be rendered.
        """
        prepared = prepare_messages(
            messages,
            system_prompt=self.settings.system_prompt,
            shows_reasoning=self._template.shows_reasoning,
            special=self._special,
        )
        by_name = {facts.name: facts for facts in media}
        whole, policy = self._render(prepared, by_name), self.settings.length_policy
        limit = self.settings.model_max_length
        if policy == "drop" or whole.total_tokens <= limit:
            return whole
        if policy == "cut_text":
            return cut_text(whole, max_tokens=limit, marks=self._marks, media_ids=self._media_ids)
        return shrink_media(whole, max_tokens=limit, render=partial(self._render, prepared, by_name))

    def _render(
        self, prepared: Sequence[Message], by_name: Mapping[str, MediaFacts], shrinking: Shrinking | None = None
    ) -> Rendered:
        """Prepared messages as the model gets them, with smaller media where ``shrinking`` is given."""
        plans, placeholders = self._plan_media(media_items(prepared), by_name, shrinking)
        text = self._template.render(prepared)
        text = self._insert(text, plans, placeholders)
        ids_T = self._encode_runs(text, [length for place in placeholders for length in place.run_lengths])
        num_answers = sum(message["role"] == labels.ASSISTANT for message in prepared)
        spans = labels.find_spans(ids_T, self._marks, num_assistant_turns=num_answers)
        media_ids = {self.token_ids.image, self.token_ids.video} if plans else ()
        image_tokens = sum(plan.num_tokens for plan in plans if plan.kind == "image")
        video_tokens = sum(plan.num_tokens for plan in plans if plan.kind == "video")
        return Rendered(
            input_ids_T=ids_T,
            labels_T=labels.label_turns(ids_T, spans, media_ids=tuple(media_ids)),
            spans=spans,
            media=tuple(plans),
            text_tokens=len(ids_T) - image_tokens - video_tokens,
            image_tokens=image_tokens,
            video_tokens=video_tokens,
            full_tokens=len(ids_T),
        )

    def encode_text(self, text: str) -> list[int]:
        """The ids of a piece of text, special tokens read as such, nothing added."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, special tokens shown."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))

    def _plan_media(
        self, items: Sequence[Message], facts_by_name: Mapping[str, MediaFacts], shrinking: Shrinking | None
    ) -> tuple[list[MediaPlan], list[Placeholder]]:
        if not items:
            return [], []
        num_images = sum(item["type"] == "image" for item in items)
        budget = media_budget(self.settings, num_images=num_images, num_videos=len(items) - num_images)
        plans, placeholders = [], []
        for item in items:
            facts, options = _facts_of(item, facts_by_name), read_media_options(item)
            plan_medium = self._planner.plan_image if facts.kind == "image" else self._planner.plan_video
            plan = plan_medium(facts, options, budget)
            if shrinking is not None:
                plan = plan_medium(facts, shrunken_options(options, plan, shrinking, planner=self._planner), budget)
            plans.append(plan)
            placeholders.append(self._planner.placeholder(plan, facts))
        return plans, placeholders

    def _insert(self, text: str, plans: Sequence[MediaPlan], placeholders: Sequence[Placeholder]) -> str:
        """The template's text with each medium's mark replaced by its placeholder, as the family's processor does."""
        marks = list(self._media_pattern.finditer(text)) if self._planner.tokens.image in text or plans else []
        shown = [mark.lastgroup for mark in marks]
        if shown != [plan.kind for plan in plans]:
            asked = [plan.kind for plan in plans]
            raise RenderProblem("placeholder_media_mismatch", f"the template shows {shown} for {asked}")
        pieces, position = [], 0
        for mark, placeholder in zip(marks, placeholders, strict=True):
            pieces += [text[position : mark.start()], placeholder.text]
            position = mark.end()
        return "".join([*pieces, text[position:]])

    def _encode_runs(self, text: str, run_lengths: Sequence[int]) -> NDArray[np.int64]:
        """The ids of ``text`` with each placeholder token repeated; equals encoding the text with the runs written out.

        (A special token is split off before anything else is tokenised, so its neighbours do not depend on how often it
        stands there; a run of thousands costs nothing this way.)
        """
        add_special_tokens = not (self._bos and text.startswith(self._bos))
        encoding = self._tokenizer.encode_batch_fast([text], add_special_tokens=add_special_tokens)[0]
        ids_T = np.array(encoding.ids, dtype=np.int64)
        if not run_lengths:
            return ids_T
        runs = np.flatnonzero((ids_T == self.token_ids.image) | (ids_T == self.token_ids.video))
        if len(runs) != len(run_lengths):
            raise RenderProblem("placeholder_media_mismatch", f"{len(runs)} placeholders for {len(run_lengths)} runs")
        repeats_T = np.ones(len(ids_T), dtype=np.int64)
        repeats_T[runs] = run_lengths
        return np.repeat(ids_T, repeats_T)

    def _find_special_text(self, files: CheckpointFiles, special: Mapping[int, str]) -> SpecialText:
        named = files.special_tokens.values()
        structural = structural_tokens(special, written=files.chat_template, named=named, config=files.config)
        return SpecialText([*structural, *self._planner.tokens.all])

    def _find_marks(self, model: str, special_ids: frozenset[int]) -> labels.TurnMarks:
        try:
            prompts, answer_end = self._template.generation_prompts(), self._template.answer_end()
        except RenderProblem as problem:
            raise ConfigError(f"{model}: the chat template cannot be used: {problem.detail}") from problem
        return labels.find_turn_marks(
            self.encode_text, generation_prompts=prompts, answer_end=answer_end, special_ids=special_ids, model=model
        )

    def _find_token_ids(self, files: CheckpointFiles) -> TokenIds:
        tokens = self._planner.tokens
        found = {"image_token_id": tokens.image, "video_token_id": tokens.video_features}
        ids = {name: self._placeholder_id(files, name, text) for name, text in found.items()}
        pad = files.special_tokens.get("pad_token")
        pad_id = self._tokenizer.token_to_id(pad) if pad else None
        return TokenIds(
            image=ids["image_token_id"],
            video=ids["video_token_id"],
            turn_end=self._marks.turn_end,
            pad=self._marks.turn_end if pad_id is None else pad_id,
        )

    def _placeholder_id(self, files: CheckpointFiles, name: str, text: str) -> int:
        ids = self.encode_text(text)
        if len(ids) != 1:
            raise ConfigError(f"{files.model}: the tokenizer has no single token for {text!r}")
        said = files.config.get(name, files.config.get(OLDER_ID_NAMES[name]))
        if said not in (None, ids[0]) and not (files.model_type == OMNI and name == "video_token_id"):
            raise ConfigError(
                f"{files.model}: config.json says {name} = {said}, its tokenizer gives {ids[0]} for {text!r}"
            )
        return ids[0]


def load_renderer(model: str, *, settings: RenderSettings) -> Renderer:
    """The renderer of a local checkpoint folder or a hub model.

    Raises ConfigError when files are missing, contradict each other or belong to a family that is not supported.
    """
    files = read_checkpoint_files(model, revision=settings.revision)
    if files.model_type not in MODEL_TYPES:
        raise ConfigError(f"{model}: model_type {files.model_type!r} cannot be rendered; {', '.join(MODEL_TYPES)} can")
    return Renderer(files, settings)


def _read_tokenizer(files: CheckpointFiles) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_str(files.tokenizer.decode("utf-8"))
    except Exception as error:  # tokenizers raises nothing narrower
        raise ConfigError(f"{files.model}: tokenizer.json cannot be read: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _facts_of(item: Message, facts_by_name: Mapping[str, MediaFacts]) -> MediaFacts:
    kind = item["type"]
    facts = facts_by_name.get(item[kind])
    if facts is None:
        raise RenderProblem("placeholder_media_mismatch", f"{kind} {item[kind]!r} is not among the sample's media")
    if facts.kind != kind:
        raise RenderProblem("placeholder_media_mismatch", f"{facts.name!r} is {facts.kind}, used as {kind}")
    if kind == "image" and facts.width * facts.height > MAX_IMAGE_PIXELS:
        size = f"{facts.width:,} x {facts.height:,}"
        raise RenderProblem("too_many_pixels", f"{facts.name}: {size}, decoded are up to {MAX_IMAGE_PIXELS:,} pixels")
    return facts


def _describe(
    files: CheckpointFiles, settings: RenderSettings, planner: MediaPlanner, *, refused: Sequence[str]
) -> dict[str, Any]:
    """What the fingerprint covers; no path, so that the same checkpoint elsewhere is the same encoding."""
    processors = (files.image_processor, files.video_processor, files.processor)
    hashed = [{name: value for name, value in config.items() if name not in UNHASHED} for config in processors]
    said = {name: value for name, value in asdict(settings).items() if name not in ("trust_remote_code", "revision")}
    return {
        "render_version": RENDER_VERSION,
        "model_type": files.model_type,
        "tokenizer_xxh3_128": hashing.content_hash(files.tokenizer),
        "special_tokens": dict(files.special_tokens),
        "chat_template_xxh3_128": hashing.content_hash(files.chat_template.encode("utf-8")),
        "processor_xxh3_128": hashing.joined_hash(json_text.dumps(config) for config in hashed),
        "refused_in_text": list(refused),
        "settings": said,
        "media": planner.describe(),
    }
