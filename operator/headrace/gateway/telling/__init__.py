"""Telling those who wait: sockets, streams of events and webhooks."""
