"""One epoch's episodes: in this process or on Ray actors, and which of them becomes the incumbent."""
