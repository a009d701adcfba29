"""SGLang as an engine: what a trial is in its words. Imports neither torch nor SGLang."""
