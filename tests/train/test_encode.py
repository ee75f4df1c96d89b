from typing import Any

import pytest
from tests.made_media import encoded, noise, video

from vlm_catalogs.errors import DataError
from vlm_catalogs.hashing import content_hash
from vlm_catalogs.render.rendered import MediaPlan
from vlm_catalogs.sample import MediaFacts, Sample
from vlm_train.encode import UndecodableMedia, blank_frames, load_frames


def test_a_video_with_fewer_frames_than_planned_is_undecodable_and_says_how_many() -> None:
    sample, plan = sample_of(video(6), "video", frame_indices=(0, 5, 9))
    with pytest.raises(UndecodableMedia, match="frame 9 is wanted, but only 6 frames decode"):
        load_frames(sample, plan, lambda frame: frame)


@pytest.mark.parametrize("kind", ["image", "video"])
@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_damaged_media_name_the_sample_and_the_medium(kind: Any, damage: str) -> None:
    whole = encoded(noise(), "JPEG") if kind == "image" else video(12)
    content = {"cut": whole[: len(whole) // 2], "empty": whole[:0], "text": memoryview(b"<html>404</html>")}[damage]
    sample, plan = sample_of(content, kind, frame_indices=(0, 11) if kind == "video" else ())
    with pytest.raises(UndecodableMedia) as caught:
        load_frames(sample, plan, lambda frame: frame)
    assert isinstance(caught.value, DataError)
    assert str(caught.value).startswith(f"photos/0001: {kind}_0 does not decode: ")
    assert (caught.value.dataset, caught.value.sample_id, caught.value.name) == ("photos", "0001", f"{kind}_0")


def test_blank_frames_have_the_planned_shape() -> None:
    _, image = sample_of(encoded(noise(), "PNG"), "image")
    _, clip = sample_of(video(6), "video", frame_indices=(0, 2, 4))
    assert blank_frames(image).shape == (1, 3, 32, 48)
    assert blank_frames(clip).shape == (3, 3, 32, 48)


def sample_of(content: memoryview, kind: Any, *, frame_indices: tuple[int, ...] = ()) -> tuple[Sample, MediaPlan]:
    facts = MediaFacts(
        name=f"{kind}_0",
        kind=kind,
        format="any",
        offset=3,
        size=len(content),
        xxh3_128=content_hash(content),
        width=48,
        height=32,
    )
    sample = Sample(
        sample_id="0001", dataset="photos", messages=[], media=b"xyz" + bytes(content), media_table=(facts,)
    )
    plan = MediaPlan(
        name=facts.name,
        kind=kind,
        height=32,
        width=48,
        grid=(1, 2, 3),
        frame_indices=frame_indices,
        num_tokens=1,
        num_patches=6,
    )
    return sample, plan
