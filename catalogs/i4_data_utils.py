"""The i4 datasets of this project's demo, written as such catalogues are: also the default ``i4_data_source``.

Copy it next to your TOML, list your own datasets, and name it: ``[custom] i4_data_source = "my_datasets.weights"``.
The file is data: it is read, not run. Keys are paths in the bucket, or under ``[mix] i4_root``, a local mirror of it.
"""

from projects.cosmos3.vlm.datasets.utils import DataSource

DATAINFO = {
    "demo_clipart": DataSource(
        wdinfo_path={
            "train": "demo_clipart/wdinfo.json",
            "val": "demo_clipart/wdinfo_val.json",
        },
        text_keys=["texts"],
        media_keys=["media"],
        text_only=False,
        total_key_count=37,
    ),
    "demo_photos": DataSource(
        wdinfo_path={"train": "demo_photos/wdinfo.json"},
        text_keys=["texts"],
        media_keys=["media"],
        text_only=False,
        total_key_count=17,
    ),
    "demo_video": DataSource(
        wdinfo_path={"train": "demo_video/wdinfo.json"},
        text_keys=["texts"],
        media_keys=["media"],
        text_only=False,
        total_key_count=14,
    ),
}

# Relative shares of samples. Weights equal to the sample counts mix the datasets in proportion to their size.
data_weight_default = {name: info.total_key_count for name, info in DATAINFO.items()}

data_weight_images = {
    "demo_clipart": 3,
    "demo_photos": 1,
    "demo_video": 0,  # 0 leaves a dataset out
}

# Split -> fraction of the samples that may be drawn at all; the weight stays what it is.
subsample_config = {
    "demo_clipart": {"train": 1.0, "val": 1.0},
}


def url_to_category(url):
    """The dataset that a tar belongs to. Other loaders ask for it; this project keeps the name with each tar."""
    for name in DATAINFO:
        if f"{name}/" in url:
            return name
    return None
