"""partnerenrich made runnable."""
