"""What clients see: the app, its answers, and how requests are read."""
