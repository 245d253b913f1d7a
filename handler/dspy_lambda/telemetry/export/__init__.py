"""Spans on their way out: encoded, queued and sent where no caller waits for it."""
