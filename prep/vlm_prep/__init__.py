"""The offline stage: sources -> parts -> index and shards -> selection -> mix manifest."""
