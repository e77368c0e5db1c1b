"""ScanNet's files: scans, meshes, masks, labels, official splits."""
