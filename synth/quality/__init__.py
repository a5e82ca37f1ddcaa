"""Quality of a pool: distances to real images, nearest neighbours, copies of training images."""
