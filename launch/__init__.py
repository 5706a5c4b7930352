"""Starts trainings on one machine, on clusters and in clouds, and checks before what they will need."""
