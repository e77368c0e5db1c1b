"""Small and random models, made without a download."""
