"""What runs in the pods: reads records, batches them, asks an engine, and commits every answer exactly once."""
