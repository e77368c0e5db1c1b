"""How the small base model of the demo is made (docs/base-model.md): it learns to look, then to answer."""
