"""What one family of models does in its own way: a module each, and the list of what may differ in `family.py`."""
