"""Trains the tiny pipeline from nothing; `python -m zbench.zimage.train` runs it."""
