"""From limits and a budget to the best configuration: in which order it decides, what fits, and what it rests on."""
