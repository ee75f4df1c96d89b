"""The queries of ``vlm-prep audit``, one file each: a header that says what its rows mean, and a SELECT of them."""
