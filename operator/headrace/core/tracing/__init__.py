"""What traces say about objects: which context each works in, and which spans a change of its status is worth."""
