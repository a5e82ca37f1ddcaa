"""A trained classifier put to use: predictions of new images, and files that need no rlcas."""
