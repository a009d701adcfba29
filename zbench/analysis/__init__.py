"""What records say: figures, caveats, labels and effects, derived anew from raw samples; it formats nothing."""
