"""How good a pool is: distances, nearest neighbours, copies."""
