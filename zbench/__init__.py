"""zbench finds, proves and keeps the fastest way to run Z-Image on given hardware."""

__version__ = "0.1.0"
