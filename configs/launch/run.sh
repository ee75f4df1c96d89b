#!/usr/bin/env bash
# What a launcher calls: build the mix where it is not there yet (cached parts cost nothing), then train on all GPUs.
#   bash configs/launch/run.sh config.toml
set -euo pipefail
vlm-prep build-mix "$1"
exec vlm-train run "$@"
