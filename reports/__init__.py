"""Reports: SQL views, frames, templates, rendering."""
