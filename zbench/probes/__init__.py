"""Clocks and gauges around a generation; they change nothing that they watch and decide nothing."""
