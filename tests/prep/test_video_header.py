import io
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm_prep.media_facts import UnreadableMedia, read_media_facts
from vlm_prep.video_header import DEMUXERS

MATROSKA_CLUSTER = b"\x1f\x43\xb6\x75"
DEMO_DATA = Path(__file__).parents[1] / "demo_data"

CODECS = {
    "mp4": ("mp4", "libx264"),
    "mov": ("mov", "mpeg4"),
    "webm": ("webm", "libvpx"),
    "mkv": ("matroska", "libx264"),
    "avi": ("avi", "mpeg4"),
    "mpegts": ("mpegts", "libx264"),
    "mpeg": ("mpeg", "mpeg2video"),
    "flv": ("flv", "flv"),
    "wmv": ("asf", "msmpeg4"),
    "ogg": ("ogg", "libvpx"),
}


def made_video(media_format: str, *, num_frames: int = 30, rate: Fraction | int = 24, sound: bool = False) -> bytes:
    container_format, codec = CODECS[media_format]
    stream = io.BytesIO()
    noise = np.random.default_rng(0)
    with av.open(stream, "w", format=container_format) as container:
        video = container.add_stream(codec, rate=rate)
        assert isinstance(video, av.VideoStream)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        if sound:
            container.add_stream("aac", rate=44_100)
        for _ in range(num_frames):
            frame = av.VideoFrame.from_ndarray(noise.integers(0, 255, (48, 64, 3), dtype=np.uint8))
            container.mux(video.encode(frame))
        container.mux(video.encode())
    return stream.getvalue()


def decoded_frames(content: bytes) -> list[av.VideoFrame]:
    with av.open(io.BytesIO(content), mode="r") as container:
        return list(container.decode(container.streams.video[0]))


VIDEOS = {media_format: made_video(media_format) for media_format in CODECS}


@pytest.mark.parametrize("media_format", DEMUXERS)
def test_facts_of_each_container_are_those_of_its_decoded_frames(media_format: str) -> None:
    facts = read_media_facts(memoryview(VIDEOS[media_format]))
    frames = decoded_frames(VIDEOS[media_format])
    assert (facts.kind, facts.format) == ("video", media_format)
    assert facts.frames == len(frames)
    assert (facts.width, facts.height) == (frames[0].width, frames[0].height)
    assert facts.fps == pytest.approx(24, rel=0.02)
    assert facts.duration == pytest.approx(len(frames) / 24, rel=0.02)
    assert (facts.mode, facts.orientation, facts.animated) == (None, None, None)


@pytest.mark.parametrize("rate", [1, 25, Fraction(30_000, 1001), Fraction(24_000, 1001)])
def test_rate_and_length_are_exact_in_mp4(rate: Fraction | int) -> None:
    facts = read_media_facts(made_video("mp4", num_frames=17, rate=rate))
    assert facts.frames == 17
    assert facts.fps == pytest.approx(float(rate), rel=1e-6)
    assert facts.duration == pytest.approx(17 / rate, rel=1e-6)


@pytest.mark.parametrize("media_format", ["mp4", "webm", "avi", "mkv", "flv", "mpegts", "mpeg", "wmv"])
def test_a_single_frame_has_a_length(media_format: str) -> None:
    facts = read_media_facts(made_video(media_format, num_frames=1, rate=10))
    assert facts.frames == 1
    assert facts.duration is not None
    assert facts.duration > 0
    assert facts.fps == pytest.approx(1 / facts.duration)


def test_b_frames_and_sound_do_not_change_the_count() -> None:
    content = made_video("mp4", num_frames=40, sound=True)
    assert read_media_facts(content).frames == len(decoded_frames(content)) == 40


def with_first_frames_cut(num_frames: int) -> bytes:
    content = bytearray(VIDEOS["mp4"])
    media_time = content.index(b"elst") + 16  # after the name, version and flags, count, segment duration
    skipped = int.from_bytes(content[media_time : media_time + 4]) + 512 * num_frames
    content[media_time : media_time + 4] = skipped.to_bytes(4)
    return bytes(content)


def test_frames_that_an_edit_list_cuts_away_do_not_count() -> None:
    content = with_first_frames_cut(10)
    facts = read_media_facts(content)
    assert facts.frames == len(decoded_frames(content)) == 20
    assert facts.fps == pytest.approx(24)
    with pytest.raises(UnreadableMedia, match="a video without frames"):
        read_media_facts(with_first_frames_cut(30))


def test_demo_videos_are_read() -> None:
    paths = [path for path in DEMO_DATA.rglob("*") if path.suffix in (".mp4", ".webm")]
    assert paths
    for path in paths:
        facts = read_media_facts(path.read_bytes())
        frames = decoded_frames(path.read_bytes())
        assert (facts.frames, facts.width, facts.height) == (len(frames), frames[0].width, frames[0].height)


def audio_only() -> bytes:
    stream = io.BytesIO()
    with av.open(stream, "w", format="mp4") as container:
        sound = container.add_stream("aac", rate=44_100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024 * 2), dtype=np.int16), format="s16", layout="stereo")
        frame.sample_rate = 44_100
        container.mux(sound.encode(frame))
        container.mux(sound.encode())
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "detail"),
    [
        (audio_only(), "no video stream"),
        (VIDEOS["mp4"][:1000], "no readable mp4 video"),
        (VIDEOS["webm"][:60], "no readable webm video|no video stream"),
        (VIDEOS["webm"][: VIDEOS["webm"].index(MATROSKA_CLUSTER)], "End of file"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "neither an image nor a video"),
        (b"ffconcat version 1.0\nfile '/etc/passwd'\n", "neither an image nor a video"),
        (b"\0\0\0\x14ftypisom" + b"\0" * 400, "no readable mp4 video|no video stream"),
    ],
)
def test_what_is_no_readable_video_is_said(content: bytes, detail: str) -> None:
    with pytest.raises(UnreadableMedia, match=f"media_unreadable: .*({detail})"):
        read_media_facts(content)


def test_a_playlist_that_looks_like_a_video_opens_no_other_file(tmp_path: Path) -> None:
    (tmp_path / "secret.mp4").write_bytes(VIDEOS["mp4"])
    playlist = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n" + str(tmp_path / "secret.mp4").encode() + b"\n"
    for head in (b"\0\0\0\x14ftypisom\0\0\0\0isom", b"FLV\x01", b"OggS", b"\x1a\x45\xdf\xa3"):
        with pytest.raises(UnreadableMedia):
            read_media_facts(head + playlist)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.sampled_from(sorted(VIDEOS)), st.data())
def test_any_damage_gives_facts_or_unreadable_media(name: str, data: st.DataObject) -> None:
    content = VIDEOS[name]
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(0, 5))):
        damaged[data.draw(st.integers(0, min(2000, len(content) - 1)))] = data.draw(st.integers(0, 255))
    try:
        facts = read_media_facts(bytes(damaged[: data.draw(st.integers(0, len(content)))]))
    except UnreadableMedia:
        return
    assert facts.width > 0
    assert facts.kind == "image" or (facts.frames and facts.fps and facts.fps > 0 and facts.duration)


def test_a_broken_video_writes_nothing_to_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    for content in (VIDEOS["mp4"][:1000], VIDEOS["avi"][:9000], VIDEOS["mpegts"][500:5000], VIDEOS["webm"][:5000]):
        try:
            read_media_facts(content)
        except UnreadableMedia:
            continue
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_reading_images_does_not_import_the_video_library() -> None:
    script = (
        "import sys; from vlm_prep.media_facts import read_media_facts, UnreadableMedia\n"
        "try: read_media_facts(b'GIF89a')\n"
        "except UnreadableMedia: sys.exit('av' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_a_frame_that_is_cut_short_does_not_count() -> None:
    facts = read_media_facts(VIDEOS["flv"][:-60])
    assert facts.frames == 29
