"""Scenes that a program draws, captions and reads back."""
