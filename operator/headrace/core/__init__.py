"""The functional core: it decides, and does nothing else. No I/O, no clock, no randomness, no logging."""
