"""Hardware: what is here, what its datasheet says, and what a setting would take on hardware that is not
here; it runs nothing."""
