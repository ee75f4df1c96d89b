#!/usr/bin/env bash
#SBATCH --job-name=vlm-train
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --signal=B:TERM@180
# sbatch configs/launch/slurm.sh config.toml
# The first start and every later one are the same command: with train.resume = true in the TOML it goes on by itself.
set -euo pipefail
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_ADDR
srun --kill-on-bad-exit=1 torchrun --nnodes "$SLURM_NNODES" --nproc-per-node 8 --rdzv-backend c10d \
    --rdzv-endpoint "$MASTER_ADDR:29500" --rdzv-id "$SLURM_JOB_ID" -m vlm_train.cli run "$@" &
run=$!
trap 'kill -TERM "$run"' TERM
status=0
wait "$run" || status=$?
while kill -0 "$run" 2>/dev/null; do # a signal ends `wait`, not the run, which saves its checkpoint now
    wait "$run" || status=$?
done
exit "$status"
