"""Requests that are answered later: gathered into windows, each of which becomes an InferenceBatch."""
