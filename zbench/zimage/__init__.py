"""The built-in Z-Image pipeline: its folders, its arithmetic and how it is loaded; it measures nothing."""
