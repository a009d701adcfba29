"""Shares of the profiles in conf/hardware, fitted to what was measured: `python -m zbench.hardware.calibrate reports`.

`observed` reads records and ceilings, `fit` makes shares and spreads of them, `classes` carries them over to cards that
were not measured, `held_out` says how far a projection is off where it was not fitted, `write` writes the profiles.
"""
