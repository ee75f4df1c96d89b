"""Conversion's anonymous memory depends on the largest sample, not on how large its tar or file is."""

import json
from pathlib import Path

import pytest
from tests import large_inputs

from vlm_prep.mds_shard import SIZE_LIMIT

MIB = 1 << 20
LIMIT = 1_000_000_000
"""Bytes of RssAnon in one process, for samples up to max_sample_bytes (256 MiB)."""


@pytest.mark.parametrize("form", ["i4 pickles", "parquet"])
def test_a_larger_input_takes_the_same_memory(tmp_path: Path, form: str) -> None:
    peaks = []
    for num_bytes in (160 * MIB, 640 * MIB):
        large_inputs.write(form, tmp_path / "input", num_bytes=num_bytes, member_bytes=8 * MIB)
        peaks.append(large_inputs.peak_memory(form, tmp_path / "input"))
    # A shard may wait in memory while the one before it is written: in either run, as it happens.
    assert peaks[1] < peaks[0] + SIZE_LIMIT + 24 * MIB, peaks


@pytest.mark.slow
@pytest.mark.parametrize("form", large_inputs.FORMS)
def test_members_of_250_mib_in_large_inputs_stay_under_the_limit(tmp_path: Path, form: str) -> None:
    is_rows = form in ("jsonl", "llava")
    member_bytes = large_inputs.ROW_BYTES if is_rows else 250 * MIB
    num_bytes = 500 * MIB if form == "jsonl data URLs" else 2500 * MIB
    large_inputs.write(form, tmp_path / "input", num_bytes=num_bytes, member_bytes=member_bytes)
    peak = large_inputs.peak_memory(form, tmp_path / "input")
    print(json.dumps({"form": form, "input_bytes": num_bytes, "peak_anonymous_bytes": peak}))
    assert peak < LIMIT
