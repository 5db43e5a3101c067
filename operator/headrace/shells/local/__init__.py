"""The local shell: the same objects and the same core on one machine, with files for objects and processes for pods."""
