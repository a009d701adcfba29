"""Tables of finished cells, and their renderings."""
