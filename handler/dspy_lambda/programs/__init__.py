"""Programs: discovered in a project, described by their schemas, one copy for each call."""
