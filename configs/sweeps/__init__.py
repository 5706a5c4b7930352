"""Grids of trainings and evaluations for `python -m medp_clip_jax.sweep`."""
