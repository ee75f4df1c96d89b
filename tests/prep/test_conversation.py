"""Every accepted spelling of a conversation becomes the same canonical one."""

from typing import Any

import pytest

from vlm_prep.conversation import RejectSample, read_record
from vlm_prep.naming import name_media

IMAGE = {"type": "image", "image": "image_0"}
QUESTION = {"role": "user", "content": [IMAGE, {"type": "text", "text": "What is it?"}]}
ANSWER = {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]}
CANONICAL = [QUESTION, ANSWER]


def named(value: Any, *kinds: str, names: dict[str, str] | None = None, **options: bool) -> Any:
    return name_media(read_record([value]), names or {f"{kind}.x": kind for kind in kinds}, **options)


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
