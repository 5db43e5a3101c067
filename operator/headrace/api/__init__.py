"""The vocabulary: the objects, their conditions and reasons, the records, and the contract with the workers."""
