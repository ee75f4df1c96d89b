"""A synthetic index: the tables of parts without shards, seeded, of any number of samples; made once into the cache.

Media: 1.4 a sample, one in twelve used before, some pictures nearly another's (their hashes differ in one to three
bits), one in ten a variant of one of 1,000 layouts, as slides and forms are. Texts: two or four turns of 20,000
phrases, one in twenty a copy. Everything is a function of the seed and the number of the row.

    python tests/benchmarks/synthetic_index.py SAMPLES [PARTS]       makes it and prints its folder
"""

import os
import shutil
import sys
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
from benchmark_set import cache_folder

from vlm_catalogs.hashing import file_hash
from vlm_catalogs.layout import INDEX_TABLES, PART_FILE, PartRecord, StoredFile, compacted_folder
from vlm_catalogs.tables import DECODED, LENGTHS, MEDIA, SAMPLES, TEXTS
from vlm_prep.compact_stage import write_compaction
from vlm_prep.compaction import TABLES as TABLES_TO_COMPACT
from vlm_prep.compaction import compaction_name
from vlm_prep.fact_files import DECODED_NAME
from vlm_prep.row_groups import write_table

NUM_DATASETS = 20
LENGTHS_NAME = "lengths/synthetic.parquet"
SCHEMAS = {
    "samples.parquet": SAMPLES,
    "media.parquet": MEDIA,
    "texts.parquet": TEXTS,
    LENGTHS_NAME: LENGTHS,
    DECODED_NAME: DECODED,
}

RANDOM = """
-- Hashed twice: DuckDB combines the hashes of two values by xor, so one salt would follow from another.
create or replace macro drawn(id, salt) as hash(hash(id, salt));
create or replace macro uniform(id, salt) as (drawn(id, salt) >> 11)::double / 9007199254740992;
create or replace macro hex128(id, salt) as printf('%016x%016x', drawn(id, salt), drawn(id, salt || '+'));
create or replace macro phash_of(content) as case
    when uniform(content, 'like') < 0.02 then xor(drawn(content // 16 * 16, 'hash'),
        (1::ubigint << (drawn(content, 'a') % 64)) | (1::ubigint << (drawn(content, 'b') % 64)))
    when uniform(content, 'like') < 0.12 then xor(drawn(drawn(content, 'layout') % 1000, 'layouts'),
        drawn(content, 'x') & drawn(content, 'y') & drawn(content, 'z'))
    when uniform(content, 'like') < 0.13 then 0::ubigint
    else drawn(content, 'hash') end;
create or replace macro changed_bits(content) as if(content < (1::bigint << 40), 0::ubigint,
    (1::ubigint << (drawn(content, 'c') % 64)) | (1::ubigint << (drawn(content, 'd') % 64)));
"""
"""A content from 2^40 on is another one encoded again: its hash differs in one or two bits."""

ROWS = """
create or replace table rows as
select
    id,
    printf('set_%02d', $dataset) as dataset,
    printf('file.jsonl#%09d', id) as sample_id,
    drawn(id, 'key') as sample_key,
    case when uniform(id, 'twin') < 0.05 then floor(id * uniform(id, 'which'))::bigint else id end as text_of,
    [0, 1, 1, 1, 1, 1, 1, 2, 2, 3, 4, -1][1 + (drawn(text_of, 'kind') % 12)::int] as kind
from range($first, $last) as numbers (id)
"""
"""``kind``: how many images, or -1 for one video."""

MEDIA_ROWS = """
create or replace table media_rows as
select
    id, dataset, sample_id, sample_key, position::int as position, kind < 0 as is_video,
    case when uniform(id * 8 + position, 'reused') < 0.08
        then floor(id * uniform(id * 8 + position, 'whose'))::bigint * 8
        when uniform(id, 'whole') < 0.5 then text_of * 8 + position
        when uniform(id, 'whole') < 0.75 and text_of <> id
            then text_of * 8 + position + (1 + id % 7) * (1::bigint << 40)
        else id * 8 + position end as content
from (select *, unnest(range(abs(kind))) as position from rows)
"""

TABLES = {
    "samples.parquet": """
        select dataset, sample_id, sample_key, null as source_id, 'file.jsonl' as source_uri, null as member,
            id * 512 as byte_offset, 'kept' as status, null as reason, null as detail,
            2 + 2 * (drawn(text_of, 'turns') % 2)::int as num_turns,
            greatest(kind, 0) as num_images, (kind < 0)::int as num_videos, 1 as num_alternatives,
            400 as text_chars, hex128(text_of, 'text') as text_hash,
            coalesce(contents.media_hash, hex128(0, 'nothing')) as media_hash,
            $part as part, ((id - $first) // 2000)::int as shard, ((id - $first) % 2000)::int as index_in_shard,
            0 as byte_begin, 512 as byte_end
        from rows
        left join (
            select id, md5(string_agg(content::varchar, ' ' order by position)) as media_hash
            from media_rows
            group by id
        ) as contents using (id)
        order by id""",
    "media.parquet": """
        select dataset, sample_id, sample_key, position, if(is_video, 'video_', 'image_') || position as name,
            'picture.jpg' as source_name, if(is_video, 'video', 'image') as kind, if(is_video, 'mp4', 'jpeg') as format,
            20000 + (drawn(content, 'bytes') % 400000)::bigint as bytes,
            200 + (drawn(content, 'width') % 1800)::int as width,
            200 + (drawn(content, 'height') % 1400)::int as height,
            if(is_video, 10.0, null) as duration, if(is_video, 25.0, null) as fps, if(is_video, 250, null) as frames,
            if(is_video, null, 'RGB') as mode, null as orientation, false as animated, true as referenced,
            hex128(content, 'content') as xxh3_128
        from media_rows order by id, position""",
    "texts.parquet": """
        select dataset, sample_id, sample_key, '[' || string_agg(turn, ', ' order by place) || ']' as messages,
            '[]' as alternatives
        from (
            select id, dataset, sample_id, sample_key, place,
                printf('{"role": "%s", "content": [%s{"type": "text", "text": "%s"}]}',
                    if(place % 2 = 0, 'user', 'assistant'), if(place = 0, shown, ''),
                    array_to_string(
                        [phrases[1 + (hash(text_of, place, i) % 20000)::int]
                            for i in range(1 + (hash(text_of, place) % 9)::int)],
                        ' ')
                ) as turn
            from (
                select *, unnest(range(2 + 2 * (drawn(text_of, 'turns') % 2)::bigint)) as place,
                    case when kind < 0 then '{"type": "video", "video": "video_0"}, '
                        else array_to_string(
                            [printf('{"type": "image", "image": "image_%d"}, ', i) for i in range(kind)], '')
                    end as shown
                from rows
            ), (select list(phrase order by number) as phrases from vocabulary)
        )
        group by id, dataset, sample_id, sample_key order by id""",
    LENGTHS_NAME: """
        select sample_key, 0 as alternative, text_tokens, image_tokens, video_tokens,
            text_tokens + image_tokens + video_tokens as total_tokens,
            text_tokens + image_tokens + video_tokens as full_tokens,
            text_tokens // 2 as supervised_tokens, 4 * (image_tokens + video_tokens) as vision_patches, null as problem
        from (
            select id, sample_key, 20 + (drawn(text_of, 'tokens') % 200)::int as text_tokens,
                greatest(kind, 0) * (100 + (drawn(id, 'image') % 900)::int) as image_tokens,
                if(kind < 0, 2000, 0) as video_tokens
            from rows
        ) order by id""",
    DECODED_NAME: """
        select dataset, sample_id, sample_key, position, if(is_video, 'video_', 'image_') || position as name,
            hex128(content, 'content') as xxh3_128, if(is_video, 'video', 'image') as kind,
            uniform(content, 'broken') > 0.0001 as decoded, if(decoded, null, 'OSError: truncated') as problem,
            if(is_video, 250, 1) as decoded_frames,
            if(is_video or not decoded, null,
                xor(phash_of(content % (1::bigint << 40)), changed_bits(content))) as phash,
            if(phash is null, null, 255 * uniform(content, 'light')) as luminance,
            if(phash is null, null, 80 * uniform(content, 'contrast')) as contrast,
            if(phash is null, null, 2000 * uniform(content, 'sharp')) as sharpness,
            if(phash is null, null, uniform(content, 'gray') < 0.05) as is_gray
        from media_rows order by id, position""",
}


def synthetic_index(num_samples: int, num_parts: int = NUM_DATASETS) -> Path:
    """A shards folder of ``num_samples`` in ``num_parts`` parts of 20 datasets; made where it is not there yet."""
    folder = cache_folder() / f"index-{num_samples}-{num_parts}"
    if not folder.exists():
        staged = folder.with_suffix(".staged")
        shutil.rmtree(staged, ignore_errors=True)
        with duckdb.connect(config={"temp_directory": str(staged / "spill"), "memory_limit": "4GB"}) as database:
            database.execute(RANDOM)
            database.execute(VOCABULARY)
            for number in range(num_parts):
                _write_part(database, staged, number, num_samples, num_parts)
        shutil.rmtree(staged / "spill", ignore_errors=True)
        staged.rename(folder)
    return folder


VOCABULARY = """
create or replace table vocabulary as
with words as (
    select list(array_to_string(
        [syllables[1 + (hash(place, i) % 15)::int] for i in range(1 + (hash(place) % 4)::int)], '')) as words
    from range(8000) as numbers (place),
        (select ['a', 'e', 'i', 'o', 'u', 'ka', 'lo', 'mi', 'ne', 'ra', 'st', 'tu', 'ver', 'wi', 'zen'] as syllables)
)
select number, array_to_string(
    [words[1 + floor(pow(8000, uniform(number, i::varchar)) - 1)::int] for i in range(3 + (hash(number) % 4)::int)], ' '
) as phrase
from range(20000) as numbers (number), words
"""
"""Phrases of words, drawn by rank as words are: the first are said most often."""


def _write_part(database: duckdb.DuckDBPyConnection, root: Path, number: int, num_samples: int, num_parts: int) -> None:
    first, last = (num_samples * at // num_parts for at in (number, number + 1))
    dataset, part = number * NUM_DATASETS // num_parts, f"{number:032x}"
    folder = root / f"set_{dataset:02d}" / "synthetic" / "parts" / part
    database.execute(ROWS, {"dataset": dataset, "first": first, "last": last})
    database.execute(MEDIA_ROWS)
    for name, question in TABLES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        given = {"part": part, "first": first} if name == "samples.parquet" else {}
        rows = database.sql(question, params=given).to_arrow_table()
        write_table(rows.cast(SCHEMAS[name]), folder / name)
    record = PartRecord(
        name=part,
        dataset=f"set_{dataset:02d}",
        shard_format=1,
        inputs=(),
        num_kept=last - first,
        num_rejected=0,
        shards=(),
        shard_samples=(),
        tables=tuple(
            StoredFile(name=name, bytes=(folder / name).stat().st_size, xxh3_128=file_hash(folder / name))
            for name in INDEX_TABLES
        ),
    )
    (folder / PART_FILE).write_text(record.as_json())


def compacted_index(num_samples: int, num_parts: int) -> Path:
    """The same index with its tables compacted as well."""
    once = synthetic_index(num_samples, num_parts)
    folder = once.with_name(f"{once.name}-compacted")
    if not folder.exists():
        staged = folder.with_suffix(".staged")
        shutil.rmtree(staged, ignore_errors=True)
        shutil.copytree(once, staged, copy_function=os.link)
        compact(staged)
        staged.rename(folder)
    return folder


def compact(root: Path) -> None:
    """Compact the index, table by table as a build does."""
    for layout in sorted(root.glob("*/*")):
        folders = sorted((layout / "parts").iterdir())
        for table in (*TABLES_TO_COMPACT, LENGTHS_NAME, DECODED_NAME):
            hashes = [file_hash(one / (PART_FILE if table in TABLES_TO_COMPACT else table)) for one in folders]
            target = compacted_folder(layout, compaction_name(table, hashes))
            record = PartRecord(
                name=target.name,
                dataset=layout.parent.name,
                shard_format=1,
                inputs=tuple({"name": one.name, "xxh3_128": xxh3} for one, xxh3 in zip(folders, hashes, strict=True)),
                num_kept=0,
                num_rejected=0,
                shards=(),
                shard_samples=(),
                tables=(),
            )
            write_compaction(record, [one / table for one in folders], target)


def files_of(root: Path, name: str) -> tuple[Path, ...]:
    """One table of every part."""
    return tuple(sorted(root.glob(f"*/*/parts/*/{name}")))


if __name__ == "__main__":
    made = synthetic_index(*(int(value) for value in sys.argv[1:]))
    print(made, sum(pq.read_metadata(path).num_rows for path in files_of(made, "media.parquet")), "media")
