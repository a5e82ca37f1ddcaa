"""Ray itself: connecting, resources, placement, folders on nodes, interrupts, crash traces."""
