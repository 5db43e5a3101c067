"""Admission: which batch may hold how much of its bulkhead. The one decision that looks across objects, and as pure as the others.

`admit` decides about everything at once; a `Book` does the same event by event. `docs/bulkheads.md` has the rules in words.
"""
