"""The Python interface over the functions that the commands use; `import jaxvsr` offers its names."""
