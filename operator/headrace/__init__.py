"""Headrace feeds GPUs steadily: batch, fan-out and scheduled GenAI work on Kubernetes and on a laptop."""

__version__ = "0.1.0"
