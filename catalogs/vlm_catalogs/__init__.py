"""What data is, for both stages: sources, samples, the mix manifest, the configuration and how text is rendered."""
