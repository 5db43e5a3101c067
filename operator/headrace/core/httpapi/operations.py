"""All that the gateway answers. Its routes are made of these, and its OpenAPI document too: what is not here is not answered."""

from __future__ import annotations

from headrace.core.httpapi import batchwise, itself, single

OPERATIONS = (*itself.OPERATIONS, *batchwise.OPERATIONS, *single.OPERATIONS)
"""The whole interface, in the order of the document."""
