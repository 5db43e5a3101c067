"""Looking at a whole run once it is done: how good its answers are, and by how much it differs from an earlier one."""
