"""Distances, directions, boxes, areas and mirror images, in metres."""
