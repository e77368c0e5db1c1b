"""Command lines: each script parses its flags and wires rooms together, nothing else. Installed as `jaxvsr.launch`."""
