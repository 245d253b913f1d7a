"""What the researchers can search; yours would be a search API or a vector store."""

NOTES = (
    "Releases on Fridays are followed by twice as many rollbacks as releases on Tuesdays.",
    "Customers report most incidents within four hours of a release.",
    "The contract promises an answer to an incident within one hour, on weekends, too.",
    "Canary deployments halve the customers whom a bad release reaches.",
)


def search_library(query: str) -> list[str]:
    """Return the notes that share a word with the query."""
    words = set(query.lower().split())
    return [note for note in NOTES if words & set(note.lower().strip(".").split())]
