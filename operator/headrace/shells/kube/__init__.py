"""The Kubernetes shell: kopf watches and feeds keys, one loop observes, asks the core, and applies. It decides nothing."""
