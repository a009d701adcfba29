"""Step masks judged by images alone, in the order that a walk has, and the front of them timed."""
