"""Describes, builds and emulates the cloud side of a project. Never imported inside Lambda."""
