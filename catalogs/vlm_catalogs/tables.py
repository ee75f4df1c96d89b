"""The Parquet tables that the two stages meet at; a reader names its columns, a writer writes exactly these."""

import pyarrow as pa

SAMPLES = pa.schema(
    [
        ("dataset", pa.string()),
        ("sample_id", pa.string()),
        ("sample_key", pa.uint64()),
        ("source_id", pa.string()),
        ("source_uri", pa.string()),  # tar or file, relative to the source's root
        ("member", pa.string()),  # member of the tar (of the first text key), null otherwise
        ("byte_offset", pa.int64()),  # where the sample's text begins in source_uri
        ("status", pa.string()),  # "kept" | "rejected"
        ("reason", pa.string()),  # null for kept
        ("detail", pa.string()),  # for people: what was found
        ("num_turns", pa.int32()),
        ("num_images", pa.int32()),
        ("num_videos", pa.int32()),
        ("num_alternatives", pa.int32()),  # how many conversations there are in all, >= 1 for kept
        ("text_chars", pa.int64()),
        ("text_hash", pa.string()),
        ("media_hash", pa.string()),
        ("part", pa.string()),
        ("shard", pa.int32()),  # number of shard.NNNNN.mds in the part
        ("index_in_shard", pa.int32()),
        ("byte_begin", pa.int64()),  # range of the sample in the shard file
        ("byte_end", pa.int64()),
    ]
)
"""A row per sample, kept or rejected, in source order."""

MEDIA = pa.schema(
    [
        ("dataset", pa.string()),
        ("sample_id", pa.string()),
        ("sample_key", pa.uint64()),
        ("position", pa.int32()),
        ("name", pa.string()),
        ("source_name", pa.string()),
        ("kind", pa.string()),
        ("format", pa.string()),
        ("bytes", pa.int64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("duration", pa.float64()),
        ("fps", pa.float64()),
        ("frames", pa.int32()),
        ("mode", pa.string()),  # Pillow mode of an image from its header, null for videos
        ("orientation", pa.int32()),  # EXIF orientation 1..8, null when there is none
        ("animated", pa.bool_()),
        ("referenced", pa.bool_()),  # does any conversation use it
        ("xxh3_128", pa.string()),
    ]
)
"""A row per image or video of each kept sample."""

TEXTS = pa.schema(
    [
        ("dataset", pa.string()),
        ("sample_id", pa.string()),
        ("sample_key", pa.uint64()),
        ("messages", pa.string()),  # canonical JSON, as in the shard
        ("alternatives", pa.string()),
    ]
)
"""A row per kept sample."""

LENGTHS = pa.schema(
    [
        ("sample_key", pa.uint64()),
        ("alternative", pa.int32()),
        ("text_tokens", pa.int32()),
        ("image_tokens", pa.int32()),
        ("video_tokens", pa.int32()),
        ("total_tokens", pa.int32()),
        ("full_tokens", pa.int32()),  # before the length policy; more than total_tokens where it shortened
        ("supervised_tokens", pa.int32()),
        ("vision_patches", pa.int32()),
        ("problem", pa.string()),  # null, or why this conversation cannot be rendered; such a sample is not selected
    ]
)
"""A row per (kept sample, alternative), for one encoding fingerprint."""

DECODED = pa.schema(
    [
        ("dataset", pa.string()),
        ("sample_id", pa.string()),
        ("sample_key", pa.uint64()),
        ("position", pa.int32()),
        ("name", pa.string()),
        ("xxh3_128", pa.string()),
        ("kind", pa.string()),
        ("decoded", pa.bool_()),  # would training decode it
        ("problem", pa.string()),  # null, or why it would not
        ("decoded_frames", pa.int32()),  # of a video, up to as many as its header says; 1 of an image that decodes
        ("phash", pa.uint64()),  # perceptual hash; null, as all that follows, for videos and for what does not decode
        ("luminance", pa.float64()),  # mean of grey, 0 to 255
        ("contrast", pa.float64()),  # standard deviation of grey
        ("sharpness", pa.float64()),  # variance of the Laplacian of grey
        ("is_gray", pa.bool_()),
    ]
)
"""A row per row of media.parquet, in its order: what full decoding found. ``facts/decoded-<version>.parquet``."""

SELECTION = pa.schema(
    [
        ("dataset", pa.string()),
        ("sample_id", pa.string()),
        ("sample_key", pa.uint64()),
        ("selected", pa.bool_()),
        ("reason", pa.string()),  # null for selected; the values stand in vlm_prep/reasons.py
        ("split", pa.string()),  # "train" | "eval"
        ("num_alternatives", pa.int32()),
        ("part", pa.string()),
        ("shard", pa.int32()),
        ("index_in_shard", pa.int32()),
        ("total_tokens", pa.int32()),  # of the longest alternative
        ("full_tokens", pa.int32()),  # of the same, before the length policy
        ("supervised_tokens", pa.int32()),
        ("vision_patches", pa.int32()),
    ]
)
"""A row per kept sample of the mix, ordered by (dataset, sample_id)."""

EPOCH = pa.schema(
    [
        ("epoch", pa.int32()),
        ("step", pa.int32()),  # from 0 within the epoch
        ("row", pa.int32()),  # from 0 within the step
        ("position", pa.int32()),  # from 0 within the row
        ("dataset", pa.string()),
        ("sample_id", pa.string()),
        ("sample_key", pa.uint64()),
        ("alternative", pa.int32()),
        ("part", pa.string()),
        ("shard", pa.int32()),
        ("index_in_shard", pa.int32()),
        ("tokens", pa.int32()),
        ("supervised_tokens", pa.int32()),
        ("vision_patches", pa.int32()),
        ("status", pa.string()),  # "planned" | "empty" (a row that fills a short last step)
    ]
)
"""A row per drawn sample, ordered by (step, row, position)."""

SAMPLE_LOSS = pa.schema(
    [
        ("attempt", pa.int32()),  # as in metrics.jsonl: 1 for the first start, one more for each resume
        ("epoch", pa.int32()),
        ("step", pa.int32()),  # from 0 within the epoch, as in the epoch table
        ("row", pa.int32()),
        ("position", pa.int32()),
        ("dataset", pa.string()),
        ("sample_id", pa.string()),
        ("sample_key", pa.uint64()),
        ("loss_sum", pa.float64()),  # over the supervised tokens of the sample
        ("supervised_tokens", pa.int32()),
    ]
)
"""A row per sample that a step trained on; of several attempts at a step the highest counts."""
