"""Optuna's samplers over the trials of a sweep, with a study for those who look."""
