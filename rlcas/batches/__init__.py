"""Mini-batches: the composition, real and synthetic images, augmentation."""
