"""From where the experts and the researchers look at a question."""

PERSPECTIVES = ("a customer", "an engineer", "a lawyer", "an economist", "a security officer", "a skeptic")
