"""Every accepted spelling of a conversation becomes the same canonical one."""

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm_prep import conversation
from vlm_prep.conversation import RejectSample, read_record
from vlm_prep.naming import NamedMedium, name_media
from vlm_prep.stored_texts import Message, read_plainly

IMAGE = {"type": "image", "image": "image_0"}
QUESTION = {"role": "user", "content": [IMAGE, {"type": "text", "text": "What is it?"}]}
ANSWER = {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]}
CANONICAL = [QUESTION, ANSWER]


@dataclass
class Named:
    messages: list[Message]
    alternatives: list[list[Message]]
    media: list[NamedMedium]


def named(value: Any, *kinds: str, names: dict[str, str] | None = None, **options: bool) -> Named:
    texts, media = name_media(read_record([value]), names or {f"{kind}.x": kind for kind in kinds}, **options)
    messages, *alternatives = texts.conversations
    return Named(messages, alternatives, media)


def items(*contents: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(contents)}]


@pytest.mark.parametrize(
    "value",
    [
        [{"role": "user", "content": [{"type": "image", "image": "image.x"}, "What is it?"]}, ANSWER],
        {"messages": [{"role": "user", "content": [{"image": "image.x"}, {"text": "What is it?"}]}, ANSWER]},
        {"conversations": [{"content": [{"type": "image"}, "What is it?"], "role": "user"}, ANSWER]},
        {"messages": [*items({"type": "image_url", "image_url": {"url": "image.x"}}, "What is it?"), ANSWER]},
        {"messages": [*items({"type": "image", "image": "image.x", "text": None}, "What is it?"), ANSWER]},
        {"messages": [{"role": "user", "content": "<image>What is it?"}, ANSWER], "images": ["image.x"]},
        {
            "image": "image.x",
            "conversations": [
                {"from": "human", "value": "<image>\nWhat is it?"},
                {"from": "gpt", "value": "A cat."},
            ],
        },
        [{"value": "<image>\nWhat is it?", "from": "human"}, {"from": "gpt", "value": "A cat."}],
    ],
)
def test_every_spelling_gives_the_same_messages(value: Any) -> None:
    result = named(value, "image")
    assert result.messages == CANONICAL
    assert [list(message) for message in result.messages] == [["role", "content"]] * 2
    assert result.alternatives == []
    assert [(medium.name, medium.source_name) for medium in result.media] == [("image_0", "image.x")]


def test_tags_in_role_content_messages_without_listed_media_stay_text() -> None:
    text = "In HTML, <video> shows a film."
    assert named([{"role": "user", "content": text}]).messages[0]["content"] == [{"type": "text", "text": text}]


def test_a_list_of_conversations_is_alternatives_in_order() -> None:
    other = [{"role": "user", "content": [{"type": "image", "image": "image.x"}, "Name it."]}, ANSWER]
    result = named([[{"role": "user", "content": "Hello"}, ANSWER], other], "image")
    assert result.messages[0]["content"] == [{"type": "text", "text": "Hello"}]
    assert result.alternatives[0][0]["content"][0] == IMAGE


def test_several_values_are_alternatives_in_their_order() -> None:
    record = read_record(
        [[{"role": "user", "content": "first"}], {"messages": [{"role": "user", "content": "second"}]}]
    )
    texts = [conversation[0]["content"][0]["text"] for conversation in record.conversations]
    assert texts == ["first", "second"]


def test_media_are_named_by_first_reference_then_the_unreferenced_by_their_names() -> None:
    value = items(*({"type": "image", "image": name} for name in ("b", "a", "b"))) + items(
        {"type": "video", "video": "v"}
    )
    result = named(value, names={"z": "image", "y": "image", "a": "image", "v": "video", "b": "image"})
    assert [item["image"] for item in result.messages[0]["content"]] == ["image_0", "image_1", "image_0"]
    assert [(medium.source_name, medium.name, medium.referenced) for medium in result.media] == [
        ("b", "image_0", True),
        ("a", "image_1", True),
        ("v", "video_0", True),
        ("y", "image_2", False),
        ("z", "image_3", False),
    ]


def test_tags_take_media_in_the_order_of_their_numbers() -> None:
    names = {f"image_{number}": "image" for number in (10, 9, 0, 1, 2, 3, 4, 5, 6, 7, 8)}
    result = named([{"from": "human", "value": "<image>" * 11}], names=names)
    assert [medium.source_name for medium in result.media] == [f"image_{number}" for number in range(11)]


def test_options_and_further_keys_stay() -> None:
    video = {"type": "video", "video": "video.x", "fps": 2.0, "video_start": 1}
    message = {"role": "assistant", "reasoning_content": "hm", "content": "yes"}
    result = named([{"role": "user", "content": [video]}, message], "video")
    assert result.messages[0]["content"] == [{"type": "video", "video": "video_0", "fps": 2.0, "video_start": 1}]
    assert list(result.messages[1].items())[2] == ("reasoning_content", "hm")


def test_the_id_and_other_fields_of_a_record_are_kept() -> None:
    record = read_record([{"id": 7, "messages": [ANSWER], "licence": "CC0", "image": "a.png"}])
    assert (record.source_id, record.meta) == ("7", {"id": 7, "licence": "CC0"})


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([], "bad_conversation"),
        ({"text": "no"}, "bad_conversation"),
        ("text", "bad_conversation"),
        ([{"role": 3, "content": "x"}], "bad_conversation"),
        ([{"role": "user", "content": 3}], "bad_conversation"),
        (items({"type": "audio", "audio": "a.wav"}), "bad_conversation"),
        (items({"type": ["image"], "image": "image.x"}), "bad_conversation"),
        (items({"type": "video", "video": ["0.png", "1.png"]}), "bad_conversation"),
        (items({"type": "image", "image": "other"}), "missing_media"),
        (items({"type": "video", "video": "image.x"}), "media_kind_mismatch"),
        ([{"from": "human", "value": "<image><image>"}], "missing_media"),
        ([{"from": "human", "value": "<video>"}], "missing_media"),
    ],
)
def test_what_is_no_conversation_leaves_by_a_named_door(value: Any, reason: str) -> None:
    with pytest.raises(RejectSample) as door:
        named(value, "image")
    assert door.value.rejected.reason == reason
    assert door.value.rejected.detail


def test_a_bare_medium_is_found_by_its_only_reference() -> None:
    value = items({"type": "image", "image": "image_0"})
    assert named(value, names={"4711.jpg": "image"}, match_single=True).messages[0]["content"] == [IMAGE]
    with pytest.raises(RejectSample):
        named(value, names={"4711.jpg": "image"})
    with pytest.raises(RejectSample):
        named(value, names={"1.jpg": "image", "2.jpg": "image"}, match_single=True)


TEXTS = st.sampled_from(
    ["", "Hi.", 'Say "\u00e4\\n"\n', "\0", "<image>", "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16")]
)
ITEMS = st.one_of(
    TEXTS.map(lambda text: {"type": "text", "text": text}),
    st.sampled_from(["a.x", "b.x", "v.x", "", "nowhere"]).map(lambda name: {"type": "image", "image": name}),
    st.just({"type": "video", "video": "v.x"}),
    st.sampled_from(
        [{"type": "text", "text": 1}, {"image": "a.x", "type": "image"}, {"type": "image"}, "text", None, 7]
    ),
    st.just({"type": "image", "image": "b.x", "max_pixels": 9}),
)
MESSAGES = st.one_of(
    st.tuples(st.sampled_from(["user", "assistant", "\u00fc"]), st.one_of(TEXTS, st.lists(ITEMS, max_size=4))).map(
        lambda pair: dict(zip(("role", "content"), pair, strict=True))
    ),
    st.sampled_from([{"content": "c", "role": "r"}, {"role": "r"}, {"role": 1, "content": "c"}, ["no message"]]),
    st.just({"role": "assistant", "content": "4", "reasoning_content": "2 + 2"}),
)


def outcome(value: Any) -> Any:
    try:
        return name_media(read_record([value]), {"a.x": "image", "b.x": "image", "v.x": "video"})
    except RejectSample as door:
        return door.rejected


@settings(max_examples=500, deadline=None, derandomize=True)
@given(st.lists(MESSAGES, max_size=4), st.sampled_from([None, "messages", "conversations"]))
def test_reading_plainly_gives_what_careful_reading_gives(messages: list[Any], key: str | None) -> None:
    value = messages if key is None else {key: messages, "id": 7, "more": None}
    quick = outcome(value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conversation, "read_plainly", lambda messages: None)
        careful = outcome(value)
    assert quick == careful


def test_what_is_spelled_as_it_is_stored_is_read_plainly() -> None:
    assert read_plainly(CANONICAL) is not None
    assert read_plainly([{"role": "user", "content": "What is it?"}, ANSWER]) is not None
    assert read_record([{"id": 1, "messages": CANONICAL}]).plain is not None
    assert read_record([{"images": ["a"], "messages": CANONICAL}]).plain is None
    assert read_record([CANONICAL, CANONICAL]).plain is None
