"""The TFDS builder of a corpus."""
