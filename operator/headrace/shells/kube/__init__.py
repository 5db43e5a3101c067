"""The Kubernetes shell: watches feed keys, one loop observes, asks the core, and applies. It decides nothing."""
