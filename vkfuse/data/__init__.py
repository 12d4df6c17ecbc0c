"""Data that ships with vkfuse: the JSON Schema of the report."""
