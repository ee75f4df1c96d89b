"""What a video's packets say, by PyAV, without decoding a frame."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from vlm_prep.memory_file import MemoryFile

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

DEMUXERS = {
    "mp4": "mp4",
    "mov": "mov",
    "webm": "matroska",
    "mkv": "matroska",
    "avi": "avi",
    "mpegts": "mpegts",
    "mpeg": "mpeg",
    "flv": "flv",
    "wmv": "asf",
    "ogg": "ogg",
}
"""Format -> FFmpeg's demuxer. Always named: left to guess, FFmpeg also takes playlists, which open other files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoHeader:
    """Facts of the first video stream, as PyAV decodes it.

    ``width`` and ``height`` are those of the decoded frames: PyAV does not apply a rotation that the file asks for.
    """

    width: int
    height: int
    duration: float
    """Seconds from the first frame's start to the last frame's end."""
    fps: float
    """frames / duration."""
    frames: int
    """Packets that give a frame: not empty, not cut away by an edit list, not damaged."""


@dataclass(slots=True)
class _Timeline:
    """What is gathered from the packets, in units of the stream's time base."""

    frames: int = 0
    first: int | None = None
    last: int | None = None
    last_duration: int = 0

    def add(self, packet: "Packet[VideoStream]") -> None:
        self.frames += 1
        time = packet.pts if packet.pts is not None else packet.dts
        if time is None:
            return
        if self.first is None or time < self.first:
            self.first = time
        if self.last is None or time > self.last:
            self.last, self.last_duration = time, packet.duration or 0


def read_video_header(content: memoryview, video_format: str) -> VideoHeader:
    """The facts of a video whose first bytes are those of ``video_format``, a key of DEMUXERS. Raises ValueError."""
    import av  # here, so that sources of images do not load FFmpeg

    try:
        with av.open(MemoryFile(content), mode="r", format=DEMUXERS[video_format]) as container:
            return _read(container)
    except (av.FFmpegError, OSError) as error:
        raise ValueError(f"no readable {video_format} video: {error.strerror or error}") from error


def _read(container: "InputContainer") -> VideoHeader:
    if not container.streams.video:
        raise ValueError("no video stream")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise ValueError("no decoder for its video stream")
    timeline = _Timeline()
    for packet in _frame_packets(container, stream):
        timeline.add(packet)
    if not timeline.frames:
        raise ValueError("a video without frames")
    if not stream.codec_context.width or not stream.codec_context.height:
        raise ValueError("a video without a size")
    seconds = _seconds(timeline, stream)
    return VideoHeader(
        width=stream.codec_context.width,
        height=stream.codec_context.height,
        duration=float(seconds),
        fps=float(timeline.frames / seconds),
        frames=timeline.frames,
    )


def _frame_packets(container: "InputContainer", stream: "VideoStream") -> "Iterator[Packet[VideoStream]]":
    for packet in container.demux(stream):
        if packet.size and not packet.is_discard and not packet.is_corrupt:
            yield packet


def _seconds(timeline: _Timeline, stream: "VideoStream") -> Fraction:
    """The length by timestamps; the last frame lasts as it says, else as long as the others do on average."""
    rate = stream.average_rate or stream.guessed_rate
    span = (timeline.last or 0) - (timeline.first or 0)
    last_duration = Fraction(timeline.last_duration)
    if span and timeline.frames > 1 and not last_duration:
        last_duration = Fraction(span, timeline.frames - 1)
    seconds = (span + last_duration) * (stream.time_base or 0)
    if seconds <= 0 and rate:
        return Fraction(timeline.frames) / rate
    if seconds <= 0:
        raise ValueError("a video without timestamps and without a frame rate")
    return Fraction(seconds)
