"""Thresholds that skip different steps, each once, or the best within a limit."""
