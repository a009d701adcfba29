"""The pipeline of one rank: what its replica's ranks compute together, and what each computes alone."""
