"""Videos and images of every kind, which of their frames are taken, and how they are stored."""
