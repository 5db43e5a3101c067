"""A real Kubernetes cluster for tests, on any machine: see README.md beside this file."""
