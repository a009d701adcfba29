"""Trials of one label are told apart by values in the words that a user types."""

from dataclasses import replace

from factories import trial

from zbench.analysis.labels import told_apart


def test_values_are_told_as_they_are_typed() -> None:
    """`false` and `null` are what an override takes; Python's own words are none."""
    plain = trial()
    trials = [
        replace(plain, engine=replace(plain.engine, options={"dumps": given})) for given in (True, False, None, 0.3)
    ]
    told = told_apart([one.label for one in trials], trials.__getitem__, str)
    assert told == [f"none engine.options.dumps={value}" for value in ("true", "false", "null", "0.3")]
