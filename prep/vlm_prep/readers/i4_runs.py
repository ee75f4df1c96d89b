"""The pairs of an ordinary i4 entry: how many from here on are plain samples, to be read together?"""

from typing import NamedTuple

from vlm_prep.parts import PartInput
from vlm_prep.plain_run import RUN_SAMPLES, PlainRun, plain_run, read_plain_facts
from vlm_prep.safe_pickle import is_pickle
from vlm_prep.tar_members import MemberTable


class Pairs(NamedTuple):
    """The members of one text tar and one media tar that belong together by their places."""

    sample_ids: list[str]
    text_tar: PartInput
    text_content: memoryview
    texts: MemberTable
    media_tar: PartInput
    media_content: memoryview
    media: MemberTable


def read_run(pairs: Pairs, begin: int, *, max_sample_bytes: int) -> PlainRun | None:
    """The plain samples from number ``begin`` on up to one that is not plain, or to so many; None without any."""
    (_, text_begins, text_sizes), (names, begins, sizes) = pairs.texts, pairs.media
    contents, facts = [], []
    for at in range(begin, min(begin + RUN_SAMPLES, len(names))):
        if text_sizes[at] + sizes[at] > max_sample_bytes or is_pickle(names[at]):
            break
        content = pairs.media_content[begins[at] : begins[at] + sizes[at]]
        found = read_plain_facts(pairs.text_content[text_begins[at] : text_begins[at] + text_sizes[at]], content)
        if found is None:
            break
        contents.append(content)
        facts.append(found)
    if not facts:
        return None
    some = slice(begin, begin + len(facts))
    file_names = [name.rpartition("/")[2] for name in names[some]]
    places = pairs.sample_ids[some], pairs.texts.names[some], text_begins[some], file_names
    return plain_run(pairs.text_tar.name, places, contents, facts)
