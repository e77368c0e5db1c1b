"""Recipes: one YAML file each, with what it does and the command that runs it. Installed as `jaxvsr.configs`."""
