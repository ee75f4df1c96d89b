"""The training stage: mix manifest -> epoch table -> rows -> micro-batches -> loop -> checkpoints and export."""
