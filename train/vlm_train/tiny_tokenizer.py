"""Tokenizers and chat templates of the tiny models: byte-level BPE trained on sentences that this file makes up."""

from collections.abc import Iterator
from itertools import product
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

VOCAB_SIZE = 1024
MODEL_MAX_LENGTH = 4096

CHAT_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
QWEN_TOKENS = (*CHAT_TOKENS, "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
OMNI_TOKENS = (*CHAT_TOKENS, "<img>", "</img>", "<image>", "<video>", "<so_start>", "<so_end>", "<so_embedding>")

ROLES = ("system", "user", "assistant")
SUBJECTS = ("a red square", "a blue circle", "the small bird", "two people", "an old house", "the green tree", "a cat")
VERBS = ("is", "stands", "moves", "shows", "looks", "has", "was seen", "can be found")
PLACES = ("on the left", "in the middle of the picture", "near the water", "under a cloudy sky", "at 12.5 seconds")
QUESTIONS = (
    "What is in this image?",
    "Describe the picture in one sentence.",
    "What happens in the video?",
    "Compare the two images and answer briefly.",
    "How many objects are there? Answer with a number: 0 1 2 3 4 5 6 7 8 9.",
)

_CONTENT = """
{%- macro content_of(content, image, video) %}
    {%- if content is string %}{{- content }}
    {%- else %}
        {%- for item in content %}
            {%- if item.type == 'image' or 'image' in item %}{{- image }}
            {%- elif item.type == 'video' or 'video' in item %}{{- video }}
            {%- elif 'text' in item %}{{- item.text }}
            {%- endif %}
        {%- endfor %}
    {%- endif %}
{%- endmacro %}
"""

# Like the official Qwen3-VL template, this one shows the reasoning of answers after the last user turn only.
QWEN_TEMPLATE = (
    _CONTENT
    + """
{%- set image = '<|vision_start|><|image_pad|><|vision_end|>' %}
{%- set video = '<|vision_start|><|video_pad|><|vision_end|>' %}
{%- set last = namespace(user=-1) %}
{%- for message in messages %}
    {%- if message.role == 'user' %}{%- set last.user = loop.index0 %}{%- endif %}
{%- endfor %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.role == 'assistant' and message.reasoning_content and loop.index0 > last.user %}
        {{- '<think>\\n' + message.reasoning_content.strip('\\n') + '\\n</think>\\n\\n' }}
    {%- endif %}
    {{- content_of(message.content, image, video) }}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""
)

# The official Omni template keeps the reasoning of every answer and leaves the expansion of <image> and <video> to the
# processor.
OMNI_TEMPLATE = (
    _CONTENT
    + """
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.role == 'assistant' and message.reasoning_content %}
        {{- '<think>\\n' + message.reasoning_content.strip('\\n') + '\\n</think>\\n' }}
    {%- endif %}
    {{- content_of(message.content, '<image>\\n', '<video>\\n') }}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""
)


def training_sentences() -> Iterator[str]:
    """The text that the merges are learned from: made up here, so that no file and no download is needed."""
    for subject, verb, place in product(SUBJECTS, VERBS, PLACES):
        yield f"{subject} {verb} {place}. The answer is that {subject} {verb} {place}.\n"
    for role, question in product(ROLES, QUESTIONS):
        yield f"{role}\n{question}\n"
    for number in range(100):
        yield f"Frame {number} sampled at {number / 4:.2f} seconds and frame {number + 1}: <{number / 2:.1f} seconds>\n"


def train_tokenizer(special_tokens: tuple[str, ...]) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer: every byte has a token, so that any text can be encoded and decoded."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer: Any = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE - len(special_tokens),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        special_tokens=[],
    )
    tokenizer.train_from_iterator(training_sentences(), trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special_tokens])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        padding_side="right",
        model_max_length=MODEL_MAX_LENGTH,
    )
