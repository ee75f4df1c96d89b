#!/usr/bin/env bash
# The whole arrow on the demo data: an i4 source -> shards -> mix -> 30 steps of a tiny Qwen3-VL -> export -> reload.
# Run by `make demo`, from the top folder of the repository.
set -euo pipefail
config=configs/tiny/qwen3_vl_i4.toml
number=1
while [ -e "outputs/demo-$number" ]; do number=$((number + 1)); done
run="outputs/demo-$number"

echo "== vlm-prep build-mix $config"
vlm-prep build-mix "$config"
echo "== vlm-train run $config"
vlm-train run "$config" --set "train.output_dir=$run" --set train.max_num_steps=30
python configs/tiny/summarise_demo.py mixes/qwen3_vl_i4 "$run"
