"""Labels: every assistant turn and nothing else, whatever the texts say."""

from collections.abc import Callable
from typing import Any

import pytest

from vlm_catalogs.render import Renderer, RenderProblem
from vlm_catalogs.render.rendered import IGNORED, Rendered
from vlm_catalogs.sample import MediaFacts


def turn(role: str, words: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": words}], **more}


def supervised_texts(renderer: Renderer, rendered: Rendered) -> list[str]:
    """The text of each run of labels."""
    texts, run = [], []
    for label in [*rendered.labels_T.tolist(), IGNORED]:
        if label != IGNORED:
            run.append(label)
        elif run:
            texts.append(renderer.decode(run))
            run = []
    return texts


@pytest.mark.parametrize("turns", [1, 2, 3, 4])
def test_k_turns_give_k_supervised_spans(family: str, turns: int, renderer_of: Callable[..., Renderer]) -> None:
    renderer = renderer_of(family)
    messages = [turn(role, f"{role} says {n}") for n in range(turns) for role in ("user", "assistant")]
    rendered = renderer.render(messages, [])
    assert supervised_texts(renderer, rendered) == [f"assistant says {n}<|im_end|>" for n in range(turns)]
    assert [span.role for span in rendered.spans] == ["user", "assistant"] * turns


def test_the_end_of_turn_is_learned_and_the_newline_after_it_is_not(
    family: str, renderer_of: Callable[..., Renderer]
) -> None:
    renderer = renderer_of(family)
    rendered = renderer.render([turn("user", "Hi"), turn("assistant", "Hello")], [])
    end = rendered.labels_T.tolist().index(renderer.token_ids.turn_end)
    assert rendered.labels_T[end + 1 :].tolist() == [IGNORED]
    assert renderer.decode(rendered.input_ids_T[end + 1 :].tolist()) == "\n"


def test_role_words_and_the_answer_inside_the_question_are_not_learned(
    family: str, renderer_of: Callable[..., Renderer]
) -> None:
    renderer = renderer_of(family)
    question = "assistant\nThe answer is 4.\nuser\nim_start assistant\nThe answer is 4."
    rendered = renderer.render([turn("user", question), turn("assistant", "The answer is 4.")], [])
    assert supervised_texts(renderer, rendered) == ["The answer is 4.<|im_end|>"]


@pytest.mark.parametrize("answer", ["\nA", "\n\nA", " A", "", "\n", "<think></think>A"])
def test_an_answer_that_begins_oddly_keeps_its_header_unlearned(
    family: str, answer: str, renderer_of: Callable[..., Renderer]
) -> None:
    renderer = renderer_of(family)
    rendered = renderer.render([turn("user", "Hi"), turn("assistant", answer)], [])
    expected = answer.removeprefix("<think></think>") + "<|im_end|>"
    assert supervised_texts(renderer, rendered) == [expected]


def test_media_tokens_are_never_learned(
    family: str,
    renderer_of: Callable[..., Renderer],
    image: Callable[..., MediaFacts],
    video: Callable[..., MediaFacts],
) -> None:
    renderer = renderer_of(family)
    medium = {"type": "image", "image": "image_0"}
    answer = {"role": "assistant", "content": [{"type": "text", "text": "Here: "}, medium]}
    rendered = renderer.render([turn("user", "Draw"), answer], [image("image_0", 64, 64)])
    assert rendered.image_tokens > 0
    assert not {renderer.token_ids.image, renderer.token_ids.video} & set(rendered.labels_T.tolist())


def test_a_pad_token_that_is_the_end_of_turn_masks_no_label(
    tmp_path: Any, tiny: Callable[[str], Any], copy_with: Callable[..., Renderer]
) -> None:
    renderer = copy_with("qwen3_vl", tokenizer_config={"pad_token": "<|im_end|>"})
    rendered = renderer.render([turn("user", "Hi"), turn("assistant", "Hello")], [])
    assert renderer.token_ids.pad == renderer.token_ids.turn_end
    assert supervised_texts(renderer, rendered) == ["Hello<|im_end|>"]


def test_a_conversation_without_an_answer_has_no_labels(family: str, renderer_of: Callable[..., Renderer]) -> None:
    rendered = renderer_of(family).render([turn("user", "Hi")], [])
    assert rendered.supervised_tokens == 0
    assert set(rendered.labels_T.tolist()) == {IGNORED}


THINKING = (
    "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\n' }}"
    "{%- if m.role == 'assistant' and loop.last %}"
    "{{- '<think>\n' + (m.reasoning_content or '') + '\n</think>\n\n' }}{%- endif %}"
    "{{- m.content + '<|im_end|>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n<think>\n' }}{%- endif %}"
)
"""What the official template of a thinking Qwen3-VL does: the last answer thinks, the generation prompt begins to."""

PREFIXED = (
    "{%- set thinks = enable_thinking if enable_thinking is defined else true %}"
    "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\n' }}"
    "{%- if m.role == 'assistant' %}"
    "{%- if m.reasoning_content %}{{- '<think>\n' + m.reasoning_content + '\n</think>\n' }}"
    "{%- else %}{{- '<think></think>' }}{%- endif %}{%- endif %}"
    "{{- m.content + '<|im_end|>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}"
    "{{- '<think>\n' if thinks else '<think></think>' }}{%- endif %}"
)
"""What the official Nemotron template does: an answer without reasoning gets an empty think block."""


@pytest.mark.parametrize("template", [THINKING, PREFIXED])
def test_what_the_generation_prompt_writes_is_not_learned_and_the_reasoning_is(
    template: str, copy_with: Callable[..., Renderer]
) -> None:
    renderer = copy_with("qwen3_vl", chat_template=template)
    answer = turn("assistant", "Four.", reasoning_content="Two and two.")
    rendered = renderer.render([turn("user", "2+2?"), answer], [])
    (learned,) = supervised_texts(renderer, rendered)
    assert learned.startswith("Two and two.\n</think>\n")
    assert learned.endswith("Four.<|im_end|>")


@pytest.mark.parametrize("template", [THINKING, PREFIXED])
def test_an_empty_think_block_that_the_template_writes_is_not_learned(
    template: str, copy_with: Callable[..., Renderer]
) -> None:
    renderer = copy_with("qwen3_vl", chat_template=template)
    messages = [turn("user", "1?"), turn("assistant", "One."), turn("user", "2?"), turn("assistant", "Two.")]
    rendered = renderer.render(messages, [])
    assert supervised_texts(renderer, rendered) == ["One.<|im_end|>", "Two.<|im_end|>"]


def test_reasoning_is_put_before_the_answer_where_the_template_knows_none(copy_with: Callable[..., Renderer]) -> None:
    plain = (
        "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
    )
    renderer = copy_with("qwen3_vl", chat_template=plain)
    answer = turn("assistant", "Four.", reasoning_content="Two and two.")
    rendered = renderer.render([turn("user", "2+2?"), answer], [])
    assert supervised_texts(renderer, rendered) == ["<think>\nTwo and two.\n</think>\n\nFour.<|im_end|>"]


def test_a_template_that_drops_an_answer_is_a_problem(copy_with: Callable[..., Renderer]) -> None:
    first_answer_only = (
        "{%- set seen = namespace(answers=0) %}{%- for m in messages %}"
        "{%- if m.role == 'assistant' %}{%- set seen.answers = seen.answers + 1 %}{%- endif %}"
        "{%- if m.role != 'assistant' or seen.answers == 1 %}"
        "{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{%- endif %}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
    )
    renderer = copy_with("qwen3_vl", chat_template=first_answer_only)
    messages = [turn(role, "x") for role in ("user", "assistant", "user", "assistant")]
    with pytest.raises(RenderProblem, match="assistant_turns_differ: the template shows 1 of 2"):
        renderer.render(messages, [])
