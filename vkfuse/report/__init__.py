"""Reports: data in; text, JSON and Markdown out. Imports neither torch nor executorch."""
