"""Figures as sentences and cells: units, digits, marks; it derives no figure."""
