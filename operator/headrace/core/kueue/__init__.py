"""Batches that Kueue admits in place of a Bulkhead. Kueue suspends and releases their Jobs; nothing here ever does.

Kueue makes a Workload for the run Job. What it says is mirrored (`verdict`); to have a batch rest, its Workload is made inactive (`run`).
"""
