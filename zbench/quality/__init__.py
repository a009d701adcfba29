"""How much a trial's images differ from the reference's; it runs outside timed rounds and judges no single image."""
