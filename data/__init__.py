"""Offline: how a corpus comes to be. This package imports `medp_clip_jax`, never the other way round."""
