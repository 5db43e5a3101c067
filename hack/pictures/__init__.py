"""The pictures of the dashboards in docs/images: what a real Prometheus answers to every panel's queries about a real run, drawn."""
