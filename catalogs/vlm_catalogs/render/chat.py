"""A conversation as the text that the checkpoint's own chat template makes of it."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from vlm_catalogs.errors import ConfigError
from vlm_catalogs.render.settings import RenderProblem

Message = dict[str, Any]

ROLES = ("system", "user", "assistant")
MEDIA_KINDS = ("image", "video")
PLAIN_SPECIAL_TOKENS = frozenset(
    text for name in ("think", "tool_call", "tool_response") for text in (f"<{name}>", f"</{name}>")
)
"""Special in some tokenizers, but ordinary writing in answers: no header and no medium can be faked with them."""
THINKING_MODES: tuple[dict[str, bool], ...] = ({}, {"enable_thinking": True}, {"enable_thinking": False})
QUESTION: list[Message] = [{"role": "user", "content": "question"}]


class ChatTemplate:
    """The compiled chat template of a checkpoint."""

    def __init__(self, template: str, special_tokens: Mapping[str, str]) -> None:
        self._template = template
        self._special_tokens = dict(special_tokens)
        self.shows_reasoning = "reasoning_content" in template
        """Does the template itself place ``reasoning_content``?"""

    def render(self, messages: Sequence[Message], **options: Any) -> str:
        """The text of a conversation, by transformers' own renderer, which needs no torch.

        Raises RenderProblem("chat_template_refused") with the template's words.
        """
        from jinja2.exceptions import TemplateError
        from transformers.utils.chat_template_utils import render_jinja_template

        try:
            # Annotated as a str, but it gives (texts, generation indices).
            rendered: Any = render_jinja_template(
                conversations=[list(messages)], chat_template=self._template, **{**self._special_tokens, **options}
            )
        except (TemplateError, TypeError) as error:
            raise RenderProblem("chat_template_refused", str(error)) from error
        return str(rendered[0][0])

    def generation_prompts(self) -> tuple[str, ...]:
        """What the template writes ahead of an answer: by default, with thinking on, and with thinking off."""
        prompts = []
        for options in THINKING_MODES:
            question = self.render(QUESTION, **options)
            asked = self.render(QUESTION, add_generation_prompt=True, **options)
            if asked.startswith(question):
                prompts.append(asked[len(question) :])
        return tuple(dict.fromkeys(prompt for prompt in prompts if prompt))

    def answer_end(self) -> str:
        """What the template writes after the answer of a conversation's last turn."""
        answer = "the probing answer"
        text = self.render([*QUESTION, {"role": "assistant", "content": answer}])
        if answer not in text:
            raise RenderProblem("chat_template_refused", "the template does not show an assistant's answer")
        return text[text.rindex(answer) + len(answer) :]


class SpecialText:
    """Strings that only a template or a processor may write; text that holds one could fake a turn or a medium."""

    def __init__(self, strings: Iterable[str]) -> None:
        self.forbidden = sorted({text for text in strings if text} - PLAIN_SPECIAL_TOKENS)
        longest_first = sorted(self.forbidden, key=len, reverse=True)
        self._pattern = re.compile("|".join(re.escape(text) for text in longest_first))
        self._first_letters = tuple({text[0] for text in self.forbidden})

    def check(self, text: str) -> None:
        """Raises RenderProblem("special_token_in_text") naming the first such string."""
        if not any(letter in text for letter in self._first_letters):
            return
        if self.forbidden and (match := self._pattern.search(text)):
            raise RenderProblem("special_token_in_text", f"{match.group()!r} at character {match.start()}")


def structural_tokens(
    special: Mapping[int, str], *, written: str, named: Iterable[str], config: Mapping[str, Any]
) -> list[str]:
    """The special tokens that could fake a turn or an end: those with a task outside of a conversation's text.

    ``special`` are the tokenizer's by id, ``written`` is what the template can write, ``named`` are the tokens that the
    tokenizer names (``eos_token`` ...), ``config`` is config.json with its ``eos_token_id`` and the like. All others
    are vocabulary of the data, such as Qwen's ``<|box_start|>`` and ``<|object_ref_start|>`` of grounded answers.
    """
    names, ids = frozenset(named), frozenset(_token_ids(config))
    return [text for number, text in special.items() if text in written or text in names or number in ids]


def _token_ids(config: Mapping[str, Any]) -> Iterator[int]:
    """Every id that a config gives a name to, at any depth."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _token_ids(value)
        elif key.endswith(("_token_id", "_token_ids")):
            yield from (number for number in (value if isinstance(value, list) else [value]) if isinstance(number, int))


def prepare_messages(
    messages: Sequence[Message], *, system_prompt: str | None, shows_reasoning: bool, special: SpecialText
) -> list[Message]:
    """Messages as the template gets them: checked, with the system prompt, all-text turns of one item as plain text.

    Reasoning: where the template names ``reasoning_content`` it decides (the official ones keep it for answers after
    the last question only); where it does not, the reasoning is put before every answer as ``<think>`` text. Raises
    RenderProblem for roles, items and texts that cannot be shown.
    """
    if not messages:
        raise RenderProblem("empty_conversation", "no messages")
    prepared = [_prepare_message(message, shows_reasoning=shows_reasoning, special=special) for message in messages]
    if system_prompt is not None and all(message["role"] != "system" for message in prepared):
        prepared.insert(0, {"role": "system", "content": system_prompt})
    return prepared


def media_items(messages: Sequence[Message]) -> list[Message]:
    """The image and video items of prepared messages, in order."""
    return [
        item
        for message in messages
        if not isinstance(message["content"], str)
        for item in message["content"]
        if item["type"] != "text"
    ]


def _prepare_message(message: Message, *, shows_reasoning: bool, special: SpecialText) -> Message:
    role = message.get("role")
    if role not in ROLES:
        raise RenderProblem("unsupported_role", f"{role!r:.60}; rendered are system, user and assistant")
    content = message.get("content")
    items = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(items, list):
        raise RenderProblem("unsupported_content", f"content of a {role} message is {type(content).__name__}")
    for item in items:
        _check_item(item, special)
    reasoning = message.get("reasoning_content")
    if role == "assistant" and reasoning:
        return _with_reasoning(items, reasoning, shows_reasoning=shows_reasoning, special=special)
    return {"role": role, "content": _plain(items, role)}


def _with_reasoning(items: list[Message], reasoning: object, *, shows_reasoning: bool, special: SpecialText) -> Message:
    if not isinstance(reasoning, str):
        raise RenderProblem("unsupported_content", f"reasoning_content is {type(reasoning).__name__}")
    special.check(reasoning)
    if shows_reasoning:
        return {"role": "assistant", "content": _plain(items, "assistant"), "reasoning_content": reasoning}
    thought = {"type": "text", "text": f"<think>\n{reasoning}\n</think>\n\n"}
    return {"role": "assistant", "content": _plain([thought, *items], "assistant")}


def _plain(items: list[Message], role: str) -> str | list[Message]:
    """Text alone as a string, which every template takes; several texts of a user stay items, as they were given."""
    if any(item["type"] != "text" for item in items) or (role == "user" and len(items) > 1):
        return items
    return "".join(item["text"] for item in items)


def _check_item(item: object, special: SpecialText) -> None:
    kind = item.get("type") if isinstance(item, dict) else None
    if kind == "text" and isinstance(item, dict) and isinstance(item.get("text"), str):
        special.check(item["text"])
    elif kind not in MEDIA_KINDS or not isinstance(item, dict) or not isinstance(item.get(str(kind)), str):
        raise RenderProblem("unsupported_content", f"item {item!r:.80}")


def check_system_prompt(prompt: str | None, special: SpecialText) -> None:
    """Raises ConfigError when the TOML's system prompt holds a string that only the template may write."""
    try:
        special.check(prompt or "")
    except RenderProblem as problem:
        raise ConfigError(f"system_prompt: {problem.detail}: only the chat template may write this") from problem
