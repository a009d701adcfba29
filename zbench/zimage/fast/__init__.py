"""Pieces that make a loaded Z-Image pipeline faster and leave its images what they are; each gives a way back."""
