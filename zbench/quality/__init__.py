"""How much a trial's images differ from the baseline's; it runs outside timed rounds and judges no single image."""
