"""The LMs that a project configures."""
