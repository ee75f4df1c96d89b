"""Shards of a real object store through the cache: the same samples, whatever happens to the server and to the disk."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from tests.object_server import ACCESS_KEY, SECRET_KEY, FaultyProxy, ObjectServer
from tests.train.small_shards import PART, make_mix, plan, stored

from vlm_catalogs.config.stream_section import StreamSection
from vlm_catalogs.errors import ConfigError, DataError, StorageError
from vlm_catalogs.layout import read_part
from vlm_catalogs.object_store import ObjectStore, S3Location
from vlm_train.cache_folder import CacheFolder
from vlm_train.fetch_plan import shard_lines, working_set
from vlm_train.open_mix import OpenMix
from vlm_train.planned_rows import planned_rows
from vlm_train.remote_shards import RemoteShards
from vlm_train.sample_store import SampleStore

BUCKET = "shards"
SIZES = {"pictures": (40, 20_000), "films": (24, 50_000)}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectServer]:
    found = ObjectServer(tmp_path_factory.mktemp("store"))
    found.start()
    yield found
    found.stop()


@pytest.fixture(scope="module")
def mix(server: ObjectServer, tmp_path_factory: pytest.TempPathFactory) -> OpenMix:
    """A mix whose shards lie in the bucket; here is only their index."""
    folder = tmp_path_factory.mktemp("mix")
    made = make_mix(folder, SIZES)
    server.fill(BUCKET, folder)
    for shard in folder.rglob("*.mds"):
        shard.unlink()
    return stored(made, BUCKET)


@pytest.fixture(scope="module")
def objects(server: ObjectServer, tmp_path_factory: pytest.TempPathFactory) -> ObjectStore:
    return ObjectStore(server.credentials(tmp_path_factory.mktemp("secrets") / "planted.secret"))


def open_store(mix: OpenMix, objects: ObjectStore, cache: Path, **settings: object) -> SampleStore:
    stream = StreamSection(cache=str(cache), **settings)  # type: ignore[arg-type]
    return SampleStore(mix, RemoteShards(mix, objects, stream))


def read_all(store: SampleStore, table: pa.Table, *, seconds_per_step: float = 0.0) -> list[str]:
    """The samples of the table as training asks for them; step by step, their names and the hash of each medium."""
    store.plan(table, epoch=0, first_step=0)
    found = []
    for row in planned_rows(table):
        for line in row:
            if line.row == 0 and line.position == 0:
                store.reached(epoch=0, step=line.step)
                time.sleep(seconds_per_step)
            if line.status == "planned":
                sample = store.read(line)
                assert len(sample.medium("image_0")) == SIZES[line.dataset][1]
                found.append(f"{sample.dataset}/{sample.sample_id}/{sample.media_table[0].xxh3_128}")
    return found


@pytest.fixture(scope="module")
def expected(mix: OpenMix, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What local shards give."""
    folder = tmp_path_factory.mktemp("local")
    local = make_mix(folder, SIZES)
    with closing(SampleStore(local)) as store:
        return read_all(store, plan(local))


def files_of(cache: Path) -> list[Path]:
    return [path for path in cache.glob("*") if path.suffix == ".mds" or "-" in path.suffix]


def least_limit(table: pa.Table, mix: OpenMix) -> int:
    """The working set of the plan, as the cache counts it."""
    lines = shard_lines(table)
    sizes = [read_part(mix.part(key.dataset, PART)).shards[key.shard].bytes for key in lines.keys]
    return working_set(lines, sizes, steps_ahead=1)


@pytest.mark.parametrize(
    ("fetch", "fetch_ahead"), [("shards", 0), ("shards", 150_000), ("shards", 1 << 30), ("ranges", 1 << 30)]
)
def test_an_object_store_gives_what_local_shards_give(
    mix: OpenMix, objects: ObjectStore, expected: list[str], tmp_path: Path, fetch: str, fetch_ahead: int
) -> None:
    with closing(open_store(mix, objects, tmp_path / "cache", fetch=fetch, fetch_ahead=fetch_ahead)) as store:
        assert read_all(store, plan(mix)) == expected
        reads = store.take_reads()
    assert reads is not None and reads.num_samples == len(expected)
    whole = sum(path.stat().st_size for path in files_of(tmp_path / "cache"))
    assert reads.num_bytes == whole  # each byte came once
    for path in tmp_path.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert SECRET_KEY.encode() not in content and ACCESS_KEY.encode() not in content


def test_a_second_run_downloads_nothing(
    mix: OpenMix, objects: ObjectStore, expected: list[str], tmp_path: Path
) -> None:
    for num_bytes_expected in (True, False):
        with closing(open_store(mix, objects, tmp_path / "cache")) as store:
            assert read_all(store, plan(mix)) == expected
            reads = store.take_reads()
        assert reads is not None and (reads.num_bytes > 0) == num_bytes_expected


def test_few_draws_fetch_few_bytes_as_ranges(mix: OpenMix, objects: ObjectStore, tmp_path: Path) -> None:
    table = plan(mix, draws={"pictures": 2, "films": 2})
    got = {}
    for fetch in ("shards", "ranges"):
        with closing(open_store(mix, objects, tmp_path / fetch, fetch=fetch)) as store:
            got[fetch] = (read_all(store, table), store.take_reads())
    assert got["ranges"][0] == got["shards"][0] and len(got["ranges"][0]) == 4
    few, all_ = got["ranges"][1], got["shards"][1]
    assert few is not None and all_ is not None and few.num_bytes < all_.num_bytes / 1.5


def test_the_cache_stays_below_its_limit_and_below_the_working_set_it_is_refused(
    mix: OpenMix, objects: ObjectStore, expected: list[str], tmp_path: Path
) -> None:
    table = plan(mix)
    least = least_limit(table, mix)
    cache = tmp_path / "cache"
    with (
        closing(open_store(mix, objects, cache, cache_limit=least - 1)) as store,
        pytest.raises(ConfigError, match=f"set cache_limit = {least} or more"),
    ):
        read_all(store, table)
    assert not files_of(cache)
    most, ended = [0], threading.Event()

    def watch() -> None:
        while not ended.is_set():
            most.append(CacheFolder(cache, limit=None).used())
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with closing(open_store(mix, objects, cache, cache_limit=least)) as store:
            assert read_all(store, table) == expected
            reads = store.take_reads()
    finally:
        ended.set()
        watcher.join()
    whole = sum(one.bytes for name in SIZES for one in read_part(mix.part(name, PART)).shards)
    assert least / 2 < max(most) <= least < whole
    assert reads is not None and reads.num_bytes == whole  # and still each shard came once


def test_what_is_needed_last_leaves_first(mix: OpenMix, objects: ObjectStore, tmp_path: Path) -> None:
    """Two passes over ten shards with room for six: by next use 14 downloads do; by age it would take all 20."""
    table = plan(mix, draws={"pictures": 80, "films": 0})
    table = table.filter(pc.equal(table["dataset"], "pictures")).sort_by([("shard", "ascending")])
    one_pass = table.filter(pa.array([number % 8 == 0 for number in range(table.num_rows)]))
    assert one_pass.num_rows == 10
    both = pa.concat_tables([one_pass, one_pass])
    steps = pa.array(range(20), pa.int32())
    both = both.set_column(both.schema.get_field_index("step"), "step", steps)
    size = read_part(mix.part("pictures", PART)).shards[0].bytes
    limit = 6 * size + size // 2
    with closing(open_store(mix, objects, tmp_path / "cache", cache_limit=limit, fetch_ahead=0)) as store:
        read_all(store, both)
        reads = store.take_reads()
    assert reads is not None
    assert reads.num_waited == round(reads.num_bytes / size) == 14


def flip_a_byte(path: Path) -> None:
    """In the medium of the third of four samples."""
    content = bytearray(path.read_bytes())
    content[len(content) * 5 // 8] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("fetch", "damage"),
    [
        ("shards", "a flipped byte"),
        ("shards", "half of it"),
        ("shards", "nothing left"),
        ("ranges", "a flipped byte"),
        ("ranges", "half of it"),
    ],
)
def test_damage_in_the_cache_is_found_and_mended(
    mix: OpenMix,
    objects: ObjectStore,
    expected: list[str],
    tmp_path: Path,
    fetch: str,
    damage: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    cache = tmp_path / "cache"
    with closing(open_store(mix, objects, cache, fetch=fetch)) as store:
        assert read_all(store, plan(mix)) == expected
    hurt = sorted(files_of(cache))[3]
    if damage == "a flipped byte":
        flip_a_byte(hurt)
    else:
        os.truncate(hurt, hurt.stat().st_size // 2 if damage == "half of it" else 0)
    with closing(open_store(mix, objects, cache, fetch=fetch)) as store:
        assert read_all(store, plan(mix)) == expected
        reads = store.take_reads()
    assert reads is not None and 0 < reads.num_bytes <= hurt.stat().st_size
    assert f"{hurt}: damaged: " in capfd.readouterr().err


@pytest.mark.parametrize("damage", ["flipped", "truncated", "too long", "missing"])
def test_damage_at_the_origin_is_one_error_with_its_lineage(
    server: ObjectServer, mix: OpenMix, objects: ObjectStore, tmp_path: Path, damage: str
) -> None:
    bucket = f"damaged-{damage.replace(' ', '-')}"
    made = make_mix(tmp_path / "mix", SIZES)
    (hurt,) = (tmp_path / "mix" / "shards" / "films").rglob("shard.00001.mds")
    content = hurt.read_bytes()
    if damage == "flipped":
        flip_a_byte(hurt)
    elif damage == "missing":
        hurt.unlink()
    else:
        hurt.write_bytes(content[:-100] if damage == "truncated" else content + b"more")
    server.fill(bucket, tmp_path / "mix")
    with (
        closing(open_store(stored(made, bucket), objects, tmp_path / "cache")) as store,
        pytest.raises(DataError) as error,
    ):
        read_all(store, plan(made))
    said = str(error.value)
    where = f"s3://{bucket}/shards/films/parts/{PART}"
    assert f"{where}/shard.00001.mds" in said and "came from films.tar" in said and ".json" in said
    assert f"move {where} away and run vlm-prep build-mix" in said
    assert not [path for path in (tmp_path / "cache").glob("*") if path.suffix == ".staged"]
    assert len(files_of(tmp_path / "cache")) <= 15


@pytest.mark.parametrize("fetch", ["shards", "ranges"])
def test_a_range_of_damaged_media_is_found_too(
    server: ObjectServer, objects: ObjectStore, tmp_path: Path, fetch: str
) -> None:
    bucket = f"media-{fetch}"
    made = make_mix(tmp_path / "mix", SIZES)
    (hurt,) = (tmp_path / "mix" / "shards" / "films").rglob("shard.00001.mds")
    flip_a_byte(hurt)
    server.fill(bucket, tmp_path / "mix")
    table = plan(made)
    # One sample of each shard of films: too little for whole shards.
    wanted = pc.equal(table["index_in_shard"], 2 if fetch == "ranges" else 0)
    table = table.filter(pc.and_(pc.equal(table["dataset"], "films"), wanted))
    message = "image_0 differs from its hash" if fetch == "ranges" else "content hash"
    with (
        closing(open_store(stored(made, bucket), objects, tmp_path / "cache", fetch=fetch)) as store,
        pytest.raises(DataError, match=message) as error,
    ):
        read_all(store, table)
    assert "came from films.tar" in str(error.value)


@pytest.mark.parametrize("fault", ["503", pytest.param("cut", marks=pytest.mark.slow), "reset", "slow"])
def test_a_failing_server_changes_nothing(
    server: ObjectServer, mix: OpenMix, expected: list[str], tmp_path: Path, fault: str
) -> None:
    proxy = FaultyProxy(server.port, fault=fault, pause=0.02)
    try:
        failing = ObjectStore(server.credentials(tmp_path / "planted.secret", url=proxy.url))
        with closing(open_store(mix, failing, tmp_path / "cache", fetch_ahead=0)) as store:
            assert read_all(store, plan(mix)) == expected
    finally:
        proxy.close()
    assert proxy.num_faults >= 2


@pytest.mark.slow
def test_a_server_that_is_away_for_ten_seconds_in_the_middle_changes_nothing(
    mix: OpenMix, expected: list[str], tmp_path: Path
) -> None:
    """A server of its own: it is stopped, with its port closed, once some shards have come, and started again."""
    own = ObjectServer(tmp_path / "store")
    own.start()
    away = {"from": 0.0, "to": 0.0}
    try:
        folder = tmp_path / "mix"
        own_mix = stored(make_mix(folder, SIZES), BUCKET)
        own.fill(BUCKET, folder)
        store_of_it = ObjectStore(own.credentials(tmp_path / "planted.secret"))
        cache = tmp_path / "cache"
        with closing(open_store(own_mix, store_of_it, cache, fetch_ahead=0)) as store:

            def stop_and_start() -> None:
                while len(files_of(cache)) < 3:
                    time.sleep(0.01)
                own.stop()
                away["from"] = time.monotonic()
                time.sleep(10)
                away["to"] = time.monotonic()
                own.start()

            breaker = threading.Thread(target=stop_and_start)
            breaker.start()
            assert read_all(store, plan(own_mix), seconds_per_step=0.05) == expected
            ended = time.monotonic()
            breaker.join()
        assert 0 < away["to"] < ended  # it was read to its end, and not before the server came back
        assert away["to"] - away["from"] >= 10
    finally:
        own.stop()


def test_a_folder_of_other_files_is_never_a_cache(mix: OpenMix, objects: ObjectStore, tmp_path: Path) -> None:
    precious = tmp_path / "precious" / "shard.00000.mds"
    precious.parent.mkdir()
    precious.write_bytes(b"original")
    with pytest.raises(ConfigError, match="holds other files"):
        open_store(mix, objects, precious.parent, cache_limit=1)
    assert [path.name for path in precious.parent.iterdir()] == [precious.name]
    assert precious.read_bytes() == b"original"


READER = """
import sys
from contextlib import closing
from pathlib import Path
from tests.train.small_shards import make_mix, plan, stored
from tests.train.test_stream_cache import BUCKET, SIZES, open_store, read_all
from vlm_catalogs.object_store import ObjectStore, S3Location

folder, credentials, cache, limit, bucket = sys.argv[1:]
import vlm_train.shard_cache
mix = make_mix(Path(folder), SIZES)
with closing(open_store(stored(mix, bucket), ObjectStore(credentials), Path(cache), cache_limit=int(limit))) as store:
    print("\\n".join(read_all(store, plan(mix))))
    print(store.take_reads().num_bytes)
"""


def start_reader(tmp_path: Path, name: str, objects: ObjectStore, limit: int) -> "subprocess.Popen[str]":
    arguments = [str(tmp_path / name), str(objects.credentials_path), str(tmp_path / "cache"), str(limit), BUCKET]
    command = [sys.executable, "-c", READER, *arguments]
    paths = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": paths})


def test_processes_share_one_cache_and_download_each_shard_once(
    mix: OpenMix, objects: ObjectStore, expected: list[str], tmp_path: Path
) -> None:
    whole = sum(one.bytes for name in SIZES for one in read_part(mix.part(name, PART)).shards)
    readers = [start_reader(tmp_path, f"reader-{number}", objects, whole) for number in range(2)]
    answers = [reader.communicate(timeout=300)[0].split() for reader in readers]
    assert [answer[:-1] for answer in answers] == [expected, expected]
    assert sum(int(answer[-1]) for answer in answers) == whole


@pytest.mark.slow
def test_processes_share_a_cache_that_holds_little(
    mix: OpenMix, objects: ObjectStore, expected: list[str], tmp_path: Path
) -> None:
    least = least_limit(plan(mix), mix)
    readers = [start_reader(tmp_path, f"reader-{number}", objects, least) for number in range(2)]
    answers = [reader.communicate(timeout=300)[0].split() for reader in readers]
    assert [answer[:-1] for answer in answers] == [expected, expected]
    assert sum(path.stat().st_size for path in files_of(tmp_path / "cache")) <= least


def test_a_reader_that_is_killed_while_it_downloads_leaves_no_broken_file(
    server: ObjectServer, mix: OpenMix, expected: list[str], objects: ObjectStore, tmp_path: Path
) -> None:
    proxy = FaultyProxy(server.port, fault="slow")
    try:
        slow = ObjectStore(server.credentials(tmp_path / "slow.secret", url=proxy.url))
        reader = start_reader(tmp_path, "killed", slow, 10**9)
        deadline = time.monotonic() + 30
        while not (staged := list((tmp_path / "cache").glob(".*.staged"))):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.3)
        reader.send_signal(signal.SIGKILL)
        reader.wait()
        assert any(path.exists() for path in staged)
    finally:
        proxy.close()
    with closing(open_store(mix, objects, tmp_path / "cache")) as store:
        assert not list((tmp_path / "cache").glob(".*.staged"))
        assert read_all(store, plan(mix)) == expected


def test_a_server_that_stays_away_is_one_error_with_what_to_do(
    mix: OpenMix, server: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlm_catalogs.object_store.ATTEMPTS", 2)
    nowhere = ObjectStore(server.credentials(tmp_path / "planted.secret", url="http://127.0.0.1:9"))
    with (
        closing(open_store(mix, nowhere, tmp_path / "cache")) as store,
        pytest.raises(StorageError, match="is the server up") as error,
    ):
        read_all(store, plan(mix))
    assert "is read from there; then go on with --resume" in str(error.value)
    assert SECRET_KEY not in str(error.value)


@pytest.mark.parametrize(("fetch", "spare"), [("shards", 0), ("shards", 130_000), ("ranges", 0)])
def test_samples_of_no_plan_push_nothing_out_that_training_reads(
    mix: OpenMix, objects: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fetch: str, spare: int
) -> None:
    """Held-out samples are read again and again beside training, whose working set fills the cache up to ``spare``."""
    every = plan(mix)
    table = every.filter(pc.equal(every["dataset"], "pictures"))
    aside = [line for row in planned_rows(every) for line in row if line.dataset == "films"][:9]
    limit = least_limit(table, mix) + spare
    fetched: Counter[tuple[object, ...]] = Counter()
    blocks = ObjectStore.blocks

    def counted(self: ObjectStore, at: S3Location, **span: int) -> Iterator[bytes]:
        fetched[at.key, *span.values()] += 1
        return blocks(self, at, **span)

    monkeypatch.setattr(ObjectStore, "blocks", counted)
    cache = tmp_path / "cache"
    with closing(open_store(mix, objects, cache, fetch=fetch, cache_limit=limit, fetch_ahead=100_000)) as store:
        store.plan(table, epoch=0, first_step=0)
        for row in planned_rows(table):
            store.reached(epoch=0, step=row[0].step)
            for line in row:
                assert store.read(line).sample_id == line.sample_id
            with ThreadPoolExecutor(4) as readers:
                read = list(readers.map(lambda line: store.read(line, aside=True), aside))
            assert [one.sample_id for one in read] == [line.sample_id for line in aside]
            assert CacheFolder(cache, limit=None).used() <= limit
    of_training = {key: times for key, times in fetched.items() if "pictures" in str(key[0])}
    assert of_training and set(of_training.values()) == {1}
