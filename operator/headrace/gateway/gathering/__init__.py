"""Requests gather in windows, and windows become batches, fan-outs, or work of a warm pool."""
