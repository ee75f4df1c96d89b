"""A corpus with one planted fault for each audit query: a dataset is named after the query that must find it."""

import io
import json
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tests.made_media import encoded, video
from xxhash import xxh3_128_hexdigest

Record = dict[str, Any]
LONG = (
    "The {0} hall has nine tall windows, two doors of oak, a floor of slate and a clock that shows half past {1}. " * 3
)


class Maker:
    """Makes pictures and records, no two alike unless asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._number = 0
        (folder / "media").mkdir(parents=True)

    def next(self) -> int:
        self._number += 1
        return self._number

    def image(self, size: tuple[int, int] = (64, 48), *, seed: int | None = None) -> Image.Image:
        """A field of soft colours: sharp enough, bright enough, like no other."""
        colours = np.random.default_rng(seed or self.next()).integers(0, 255, (8, 8, 3), dtype=np.uint8)
        return Image.fromarray(colours).resize(size, Image.Resampling.BICUBIC)

    def save(self, content: bytes | memoryview, suffix: str) -> str:
        name = f"media/{self.next():05d}.{suffix}"
        (self.folder / name).write_bytes(content)
        return name

    def picture(self, size: tuple[int, int] = (64, 48)) -> str:
        return self.save(encoded(self.image(size), "PNG"), "png")

    def ask(self, *images: str, question: str = "", answer: str = "", **fields: Any) -> Record:
        """A clean sample of one question and one answer."""
        number = self.next()
        items: list[Record] = [{"type": "image", "image": name} for name in images]
        question = question or f"What is number {number} of them?"
        user = {"role": "user", "content": [*items, {"type": "text", "text": question}]}
        return {"messages": [user, {"role": "assistant", "content": answer or f"It is thing {number}."}], **fields}

    def film(self, name: str, **fields: Any) -> Record:
        number = self.next()
        content = [{"type": "video", "video": name}, {"type": "text", "text": f"What happens in {number}?"}]
        answer = {"role": "assistant", "content": f"Thing {number} happens."}
        return {"messages": [{"role": "user", "content": content}, answer], **fields}


Fault = Callable[[Maker], list[Record]]
FAULTS: dict[str, Fault] = {}
COMPANIONS: dict[str, set[str]] = {}
"""Query -> other queries of severity E or W that its fault cannot but meet."""


def fault(*companions: str) -> Callable[[Fault], Fault]:
    def add(make: Fault) -> Fault:
        FAULTS[make.__name__] = make
        COMPANIONS[make.__name__] = set(companions)
        return make

    return add


def answering(name: str, answer: str, *, question: str = "") -> None:
    """A fault that is one answer to a picture."""
    FAULTS[name] = lambda make: [make.ask(make.picture(), answer=answer, question=question)]
    COMPANIONS[name] = set()


def showing(name: str, content: Callable[[Maker], bytes | memoryview], suffix: str, *companions: str) -> None:
    """A fault that is one picture."""
    FAULTS[name] = lambda make: [make.ask(make.save(content(make), suffix))]
    COMPANIONS[name] = set(companions)


answering("placeholder_in_answer", "Look at <image> again.")
answering("special_tokens_in_text", "[INST] Say it. [/INST] It.")
answering("one_character_answers", "!")
answering("answer_equals_question", "What is on the table there?", question="What is on the table there?")
answering("user_text_in_answers", "It is red.\nUser: And what is that?\nIt is blue.")
answering("control_characters", "It is \x07 red.")
answering("mojibake", "It is a cafÃ© in Paris.")
answering("html", "It is <b>red</b>&nbsp;here.")
answering("urls", "See https://example.org/page for more.")
answering("personal_data", "Write to jane.doe@example.org about it.")
answering("refusals", "I'm sorry, but I can't assist with that.")
answering("boilerplate", "As an AI language model, I see a red car.")
answering("loops", "It begins. " + "And then it goes on and on and on. " * 20)
answering("boxes_out_of_range", "The box is [10, 10, 1200, 50].", question="Give the bounding box of the dog.")
answering("tiny_image_for_text", " ".join(map(str, range(150))), question="Read the text in the picture.")
answering("length_outliers", "It is one of many. " * 9)
answering("media_tags_in_text", "It is red.", question="<video> What is there?")
showing("tiny_media", lambda make: encoded(make.image((20, 40)), "PNG"), "png")
showing("extreme_aspect", lambda make: encoded(make.image((5800, 28)), "PNG"), "png", "not_renderable")
showing("media_type_differs_from_name", lambda make: encoded(make.image(), "PNG"), "jpg")
showing("unusual_colour_modes", lambda make: encoded(make.image().convert("CMYK"), "JPEG"), "jpg")
showing("alpha_channels", lambda make: encoded(make.image().convert("RGBA"), "PNG"), "png")
showing("too_many_pixels", lambda make: huge_png(20_000, 10_000), "png", "not_renderable", "undecodable_media")
showing("extreme_scaling", lambda make: encoded(make.image((1200, 1000)), "JPEG", quality=60), "jpg")
showing("undecodable_media", lambda make: bytes(encoded(make.image((200, 200)), "JPEG", quality=95))[:-2000], "jpg")
showing("dark_images", lambda make: encoded(make.image().point(lambda level: level // 16), "PNG"), "png")
showing("light_images", lambda make: encoded(make.image().point(lambda level: 252 + level // 64), "PNG"), "png")
showing("low_information_images", lambda make: encoded(Image.new("RGB", (64, 48), "teal"), "PNG"), "png")
showing("gray_images", lambda make: encoded(make.image().convert("L"), "PNG"), "png")
showing("blurred_images", lambda make: encoded(make.image((4, 3)).resize((300, 200), 3), "PNG"), "png")


def huge_png(width: int, height: int) -> bytes:
    """The header of a picture that nobody should decode, and little else."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


@fault()
def exif_rotations(make: Maker) -> list[Record]:
    image = make.image()
    exif = image.getexif()
    exif[0x0112] = 6
    return [make.ask(make.save(encoded(image, "JPEG", exif=exif), "jpg"))]


@fault()
def animations(make: Maker) -> list[Record]:
    frames = [make.image(), make.image()]
    return [make.ask(make.save(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]), "gif"))]


@fault()
def role_order(make: Maker) -> list[Record]:
    record = make.ask(make.picture())
    return [{"messages": [record["messages"][0], *record["messages"]]}]


@fault("not_renderable")
def unknown_roles(make: Maker) -> list[Record]:
    record = make.ask(make.picture())
    return [{"messages": [*record["messages"], {"role": "observer", "content": "I saw it."}]}]


@fault()
def placeholder_mismatch(make: Maker) -> list[Record]:
    messages = [{"role": "user", "content": "<image><image> Which?"}, {"role": "assistant", "content": "Both."}]
    return [{"messages": messages, "images": [make.picture()]}]


@fault()
def unreferenced_media(make: Maker) -> list[Record]:
    messages = [{"role": "user", "content": "<image> Which one?"}, {"role": "assistant", "content": "That one."}]
    return [{"messages": messages, "images": [make.picture(), make.picture()]}]


@fault()
def not_renderable(make: Maker) -> list[Record]:
    record = make.ask(make.picture())
    record["messages"][0]["content"][0] |= {"min_pixels": 10_000, "max_pixels": 10}
    return [record]


@fault()
def empty_turns(make: Maker) -> list[Record]:
    record = make.ask(make.picture())
    more = [{"role": "user", "content": "  "}, {"role": "assistant", "content": "And another one."}]
    return [{"messages": [*record["messages"], *more]}]


@fault()
def same_answers(make: Maker) -> list[Record]:
    return [make.ask(make.picture(), answer="There is a red car in the picture.") for _ in range(12)]


@fault()
def option_letter_bias(make: Maker) -> list[Record]:
    return [make.ask(answer="B" if number % 8 else "C") for number in range(48)]


@fault()
def scripts(make: Maker) -> list[Record]:
    return [make.ask(make.picture(), question="Что это?", answer="Это дом.")]


@fault()
def mixed_box_conventions(make: Maker) -> list[Record]:
    boxes = ("[0.1, 0.2, 0.3, 0.4]", "[100, 200, 300, 400]")
    return [make.ask(make.picture(), question=f"Where is the box {box[1:3]}?", answer=f"At {box}.") for box in boxes]


@fault()
def duplicate_samples(make: Maker) -> list[Record]:
    return [make.ask(make.picture())] * 2


@fault()
def repeated_conversations(make: Maker) -> list[Record]:
    text = LONG.format("great", "two")
    return [make.ask(make.picture(), question="Tell of the hall.", answer=text) for _ in range(2)]


@fault()
def duplicate_media(make: Maker) -> list[Record]:
    picture = make.picture()
    return [make.ask(picture) for _ in range(3)]


@fault()
def medium_reuse(make: Maker) -> list[Record]:
    picture = make.picture()
    return [make.ask(picture) for _ in range(51)]


@fault()
def conflicting_answers(make: Maker) -> list[Record]:
    picture = make.picture()
    return [make.ask(picture, question="What colour has the car?", answer=f"It is {one}.") for one in ("red", "blue")]


@fault()
def media_missing_or_unreadable(make: Maker) -> list[Record]:
    return [make.ask("media/nowhere.png"), make.ask(make.save(b"", "png")), make.ask(make.save(b"no picture", "png"))]


@fault()
def odd_video_facts(make: Maker) -> list[Record]:
    return [make.film(make.save(video(1), "mp4"))]


@fault()
def near_duplicate_media(make: Maker) -> list[Record]:
    image = make.image()
    return [make.ask(make.save(encoded(image, one), one.lower())) for one in ("PNG", "BMP")]


@fault()
def resolution_outliers(make: Maker) -> list[Record]:
    return [make.ask(make.picture((256, 192) if number == 7 else (64, 48))) for number in range(21)]


@fault()
def aspect_outliers(make: Maker) -> list[Record]:
    return [make.ask(make.picture((32, 96) if number == 7 else (64, 48))) for number in range(21)]


@fault()
def duration_outliers(make: Maker) -> list[Record]:
    return [make.film(make.save(video(60 if number == 7 else 4 + number % 2), "mp4")) for number in range(21)]


@fault()
def distributions(make: Maker) -> list[Record]:
    return [make.ask(make.picture())]


@fault()
def tokens_per_dataset(make: Maker) -> list[Record]:
    return [make.ask(make.picture())]


@fault()
def duplicate_source_ids(make: Maker) -> list[Record]:
    return [make.ask(make.picture(), id="same") for _ in range(2)]


@fault("media_missing_or_unreadable")
def rejected_samples(make: Maker) -> list[Record]:
    return [make.ask("media/nowhere.png")]


@fault("over_long")
def unselected_samples(make: Maker) -> list[Record]:
    return [make.ask(make.picture(), answer="It is long. " * 400)]


@fault()
def over_long(make: Maker) -> list[Record]:
    return [make.ask(make.picture(), answer="It is longer. " * 400)]


@fault()
def no_supervised_tokens(make: Maker) -> list[Record]:
    return [{"messages": [{"role": "user", "content": "There is nobody to answer this."}]}]


@fault()
def shard_sizes(make: Maker) -> list[Record]:
    return [make.ask() for _ in range(20)]


@fault()
def weights_without_data(make: Maker) -> list[Record]:
    return [make.ask(make.picture())]


@fault()
def repeats_per_epoch(make: Maker) -> list[Record]:
    return [make.ask(make.picture())]


@fault()
def benchmark_contamination(make: Maker) -> list[Record]:
    picture = make.picture()
    content = (make.folder / picture).read_bytes()
    (make.folder / "benchmark.csv").write_text(f"hash\n{xxh3_128_hexdigest(content)}\n")
    return [make.ask(picture)]


@fault("repeated_conversations")
def eval_leakage_by_text(make: Maker) -> list[Record]:
    text = LONG.format("small", "ten")
    return [make.ask(make.picture(), question="Tell of it.", answer=text) for _ in range(8)]


@fault("near_duplicate_media")
def eval_leakage_by_looks(make: Maker) -> list[Record]:
    pairs = [make.image() for _ in range(8)]
    return [make.ask(make.save(encoded(image, one), one.lower())) for image in pairs for one in ("PNG", "BMP")]


WEIGHTS = {"weights_without_data": 1e-12, "repeats_per_epoch": 30.0, "medium_reuse": 52.0}
EVAL = ["eval_leakage_by_text", "eval_leakage_by_looks"]
I4_FAULTS = ("tar_members", "tar_order", "wdinfo_counts")
NUM_CLEAN = 2
"""Clean samples that stand beside the fault in each dataset."""


def write_planted(folder: Path) -> Path:
    """The TOML of a corpus with every fault."""
    make = Maker(folder)
    names = []
    for name, records_of in FAULTS.items():
        records = records_of(make)
        num_clean = 24 if name == "length_outliers" else NUM_CLEAN
        clean = [make.ask(make.picture()) for _ in range(num_clean)]
        write_records(folder, name, [*records, *clean], one_each=name == "shard_sizes")
        names.append(name)
    write_i4_faults(folder, make)
    return write_toml(folder, names, use_i4=True)


def write_clean(folder: Path) -> Path:
    """The TOML of a corpus without a fault."""
    make = Maker(folder)
    for name in ("one", "two"):
        write_records(folder, name, [make.ask(make.picture()) for _ in range(12)])
    return write_toml(folder, ["one", "two"], eval_datasets=["one"])


def write_records(folder: Path, name: str, records: list[Record], *, one_each: bool = False) -> None:
    lines = [json.dumps(record) for record in records]
    if one_each:
        (folder / name).mkdir()
        for number, line in enumerate(lines):
            (folder / name / f"{number:03d}.jsonl").write_text(line + "\n")
    else:
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")


def write_toml(folder: Path, names: list[str], *, use_i4: bool = False, eval_datasets: list[str] = EVAL) -> Path:
    sources = [
        f'[[mix.source]]\nname = "{name}"\npath = "{folder / name}{"" if (folder / name).is_dir() else ".jsonl"}"\n'
        f'media_root = "{folder}"\nweight = {WEIGHTS.get(name, 4.0)}\n'
        for name in names
    ]
    i4 = 'use_i4 = true\ni4_data_source = "planted.weights"\n' if use_i4 else ""
    text = f"""
[policy]
model_name_or_path = "{folder / "tiny"}"
model_max_length = 1024
[custom]
include_video = true
{i4}
[mix]
root = "{folder / "mixes"}"
shards = "{folder / "shards"}"
i4_root = "{folder / "bucket"}"
decode = "full"
max_rejected_fraction = 1.0
num_workers = 1
[mix.select.eval]
fraction = 0.5
datasets = {json.dumps(eval_datasets)}
[mix.audit]
at_build = "never"
benchmarks = ["{folder / "benchmark.csv"}"]
{"".join(sources)}"""
    if not use_i4:
        (folder / "benchmark.csv").write_text(f"hash\n{'0' * 32}\n")
        text = text.replace(f'i4_root = "{folder / "bucket"}"\n', "")
    (folder / "mix.toml").write_text(text)
    return folder / "mix.toml"


def write_i4_faults(folder: Path, make: Maker) -> None:
    """Three i4 sources: a medium without a text, tars in different orders, counts that are wrong."""
    for name in I4_FAULTS:
        keys = [f"{number:03d}" for number in range(3)]
        texts = [(f"{key}.json", text_of(make)) for key in keys]
        media = [(f"{key}.png", bytes(encoded(make.image(), "PNG"))) for key in keys]
        if name == "tar_members":
            media.append(("lonely.png", bytes(encoded(make.image(), "PNG"))))
        if name == "tar_order":
            media.reverse()
        root = folder / "bucket" / name
        write_tar(root / "texts" / "0.tar", texts)
        write_tar(root / "media" / "0.tar", media)
        count = 5 if name == "wdinfo_counts" else len(media)
        wdinfo = {"root": name, "data_list": ["0.tar"], "data_list_key_count": [count], "total_key_count": count}
        (root / "wdinfo.json").write_text(json.dumps(wdinfo))
    sources = "".join(
        f'    "{name}": DataSource(wdinfo_path={{"train": "{name}/wdinfo.json"}}, text_keys=["texts"], '
        'media_keys=["media"], text_only=False),\n'
        for name in I4_FAULTS
    )
    module = "from projects.cosmos3.vlm.datasets.utils import DataSource\n\nDATAINFO = {\n" + sources + "}\n"
    (folder / "planted.py").write_text(module + f"weights = dict.fromkeys({list(I4_FAULTS)}, 4)\n")


def text_of(make: Maker) -> bytes:
    record = make.ask("picture.png")
    return json.dumps(record["messages"]).encode()


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
