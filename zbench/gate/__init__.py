"""Verdicts on records: what got slower, larger or worse, and whether that can be said at all."""
