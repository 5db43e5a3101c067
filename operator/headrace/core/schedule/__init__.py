"""Decisions about ScheduledGeneration: when it is due, with which window, and what becomes of each tick."""
