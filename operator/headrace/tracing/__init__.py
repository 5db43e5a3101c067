"""Sending spans to a collector by OTLP. Both the shells and the workers do, so it stands beside them and knows only the vocabulary."""

from headrace.tracing.tracer import Silent, Tracer, open_tracer

__all__ = ["Silent", "Tracer", "open_tracer"]
