"""Images and sounds that records name: fetched with care, and decoded.

- `addresses` says where a worker may go (pure); `web` goes there; `library` also knows the other kinds of URLs
- `images` and `sounds` decode what was fetched

Whatever is wrong with one is a `MediaError`, and an error of that record alone.
"""
