"""Who may have what of a gateway."""
