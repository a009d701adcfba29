"""Two configurations or revisions measured interleaved on one machine, for a verdict that drift cannot spoil."""
