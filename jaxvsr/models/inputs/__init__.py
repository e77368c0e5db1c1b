"""From text and pictures to the arrays of a scene tree."""
