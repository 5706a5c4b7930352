"""What every file of numbers says first, see `results.header`."""

HEADER = {
    "notice",
    "time",
    "version",
    "commit",
    "machine",
    "seed",
    "config",
    "data",
    "checkpoint",
    "prompts",
    "sentences",
}
