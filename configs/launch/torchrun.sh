#!/usr/bin/env bash
# Two machines with 8 GPUs each: run this on both, with NODE_RANK=0 and 1, and MASTER_ADDR naming the first.
#   MASTER_ADDR=first NODE_RANK=0 bash configs/launch/torchrun.sh config.toml
set -euo pipefail
exec torchrun --nnodes "${NUM_NODES:-2}" --nproc-per-node "${NUM_GPUS:-8}" --node-rank "$NODE_RANK" \
    --master-addr "$MASTER_ADDR" --master-port "${MASTER_PORT:-29500}" -m vlm_train.cli run "$@"
