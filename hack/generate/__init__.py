"""Everything in this repository that is generated: `python -m generate` writes it, `--check` holds it against what is there."""
