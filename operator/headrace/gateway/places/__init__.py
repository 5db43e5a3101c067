"""Where batches and files are: this machine, or a cluster."""
