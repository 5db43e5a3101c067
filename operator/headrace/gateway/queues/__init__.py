"""Where single requests are kept until they are answered: NATS JetStream."""
