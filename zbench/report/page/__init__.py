"""The report: what stands on it, its pictures, and its files as Markdown and HTML."""
