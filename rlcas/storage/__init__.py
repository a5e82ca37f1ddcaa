"""Files: atomic writes, safe reading, digests, remote addresses."""
