"""Trains the tiny pipeline from nothing; `python -m zbench.zimage.train` runs it. It stays in the checkout: no wheel
holds it, and nothing else imports it."""
