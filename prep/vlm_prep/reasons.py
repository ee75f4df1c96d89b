"""Why a sample is left out: every named door, with the one line that reports print for it."""

# Conversion: what cannot be stored (semantics A10).
UNREADABLE_JSON = "unreadable_json"
BAD_CONVERSATION = "bad_conversation"
MISSING_TEXT = "missing_text"
MISSING_MEDIA = "missing_media"
MEDIA_EMPTY = "media_empty"
MEDIA_UNREADABLE = "media_unreadable"
MEDIA_KIND_MISMATCH = "media_kind_mismatch"
MEDIA_NAME_COLLISION = "media_name_collision"
MEDIA_OUTSIDE_ROOT = "media_outside_root"
REMOTE_MEDIA = "remote_media"
UNSAFE_PICKLE = "unsafe_pickle"
UNREADABLE_PICKLE = "unreadable_pickle"
DUPLICATE_MEMBER = "duplicate_member"
NOT_A_FILE = "not_a_file"
SAMPLE_TOO_LARGE = "sample_too_large"

# Selection: what a mix does not use (semantics B1).
UNDECODABLE = "undecodable"
VIDEO_NOT_INCLUDED = "video_not_included"
LONGER_THAN_MODEL_MAX_LENGTH = "longer_than_model_max_length"
NO_SUPERVISED_TOKENS = "no_supervised_tokens"
NOT_IN_SUBSAMPLE = "not_in_subsample"
EXCLUDED = "excluded"
NOT_INCLUDED = "not_included"
HELD_OUT = "held_out"
DUPLICATE_OF = "duplicate_of_"
"""Begins the reason of a duplicate; text, media or both follows."""
NEAR_DUPLICATE = "near_duplicate"
OVER_MAX_SAMPLES = "over_max_samples"
OVER_MAX_TOKENS = "over_max_tokens"
WHERE = "where:"
"""Begins the reason of a condition; its name follows."""

MEANINGS: dict[str, str] = {
    UNREADABLE_JSON: "the text is not JSON that can be stored (broken, NaN, lone surrogates, huge integers, too deep)",
    BAD_CONVERSATION: "the JSON is not a conversation in any accepted spelling",
    MISSING_TEXT: "media without a text member of that name",
    MISSING_MEDIA: "the conversation uses a medium that is not there",
    MEDIA_EMPTY: "a medium of no bytes",
    MEDIA_UNREADABLE: "the header of a medium cannot be read",
    MEDIA_KIND_MISMATCH: "an image item names a video, or the other way round",
    MEDIA_NAME_COLLISION: "two media keys hold the same media name",
    MEDIA_OUTSIDE_ROOT: "a path leads out of the media root",
    REMOTE_MEDIA: "a medium is a URL that may not be fetched: fetch_media is off, or the address is not public",
    UNSAFE_PICKLE: "a pickle wants more than plain values; it was not run",
    UNREADABLE_PICKLE: "a pickle is broken, or not a dict of media names and bytes",
    DUPLICATE_MEMBER: "the same member stands in the tar before",
    NOT_A_FILE: "a member of the tar is a link, a device or a pipe, without content of its own",
    SAMPLE_TOO_LARGE: "the sample is over max_sample_bytes",
    UNDECODABLE: "one of its media does not decode",
    VIDEO_NOT_INCLUDED: "it has a video, and [custom] include_video is false",
    LONGER_THAN_MODEL_MAX_LENGTH: "its longest alternative is over model_max_length",
    NO_SUPERVISED_TOKENS: "an alternative has no token to learn from",
    NOT_IN_SUBSAMPLE: "left out by repeat_time, subsample_config or [mix.select] fractions below 1",
    EXCLUDED: "a list of [mix.select] exclude names it",
    NOT_INCLUDED: "no list of [mix.select] include names it",
    HELD_OUT: "a held-out set has one of its media, or its text",
    f"{DUPLICATE_OF}text": "another sample that stays has the same text",
    f"{DUPLICATE_OF}media": "another sample that stays has the same media",
    f"{DUPLICATE_OF}both": "another sample that stays has the same text and media",
    NEAR_DUPLICATE: "another sample that stays has nearly the same pictures (and, by = 'both', the same text)",
    OVER_MAX_SAMPLES: "beyond [mix.select] max_samples of its dataset",
    OVER_MAX_TOKENS: "beyond [mix.select] max_tokens of its dataset",
}
"""Reason -> meaning. Rendering adds reasons of its own to a selection: why a conversation cannot become tokens."""


def meaning_of(reason: str) -> str:
    """What a reason says about the samples that left by it."""
    if reason.startswith(WHERE):
        return f"[mix.select.where] {reason.removeprefix(WHERE)} is not true of it"
    return MEANINGS.get(reason, "it cannot become tokens")
