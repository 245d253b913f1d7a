"""The LMs of an environment, by alias: created once, for programs and for code outside calls."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import cast

from dspy_lambda.call import Call, NoCall
from dspy_lambda.config import Config
from dspy_lambda.errors import ConfigError
from dspy_lambda.models.registry import FallbackLM, ProgramLM, build_models
from dspy_lambda.programs.discovery import default_lm
from dspy_lambda.programs.program import Program
from dspy_lambda.settings import Settings
from dspy_lambda.telemetry import Log

_USUAL_SECONDS = 60  # if no program could be loaded


class ModelPool(dict[str, ProgramLM]):
    """Creates an alias's LM when it is first needed.

    Args:
        no_call: stands for the call when an LM is used outside any call.
        log: writes a line when a call falls back to another model.
    """

    def __init__(self, config: Config, project: Path, settings: Settings, no_call: NoCall, log: Log) -> None:
        super().__init__()
        self._config = config
        self._project = project
        self._settings = settings
        self._no_call = no_call
        self._log = log

    def outside_of_calls(self, alias: str) -> ProgramLM | None:
        """Return an alias's LM for use outside calls; None without its key, which perhaps no program needs."""
        if alias not in self:
            with suppress(ConfigError):
                self.update(self._made({alias}))
        return self.get(alias)

    def keep(self, programs: Iterable[Program]) -> None:
        """Create the LMs of these programs, and drop all others except the default LM of code outside calls.

        Raises:
            ConfigError: The variable that holds a model's key is not set.
        """
        found = list(programs)
        seconds = (self._config.lambda_.function(program.name).timeout_seconds for program in found)
        self._no_call.seconds = max(seconds, default=_USUAL_SECONDS)
        used = {alias for p in found for alias in self._config.aliases_of(p.name, p.constructor_models)}
        for alias, lm in self._made(used).items():
            # Programs may have received their LMs when they were created, before other code set the key.
            self.setdefault(alias, lm).kwargs = lm.kwargs
        for alias in self.keys() - used:
            if self[alias] is not default_lm():
                del self[alias]

    def _made(self, aliases: set[str]) -> dict[str, ProgramLM]:
        models = build_models(self._config, aliases, self._project, self._no_call.seconds, self._settings)
        for alias, lm in models.items():
            lm.call = cast(Call, self._no_call)
            if isinstance(lm, FallbackLM):
                from dspy_lambda.models.fallback import Fallback

                lm.fallback = Fallback(alias, self._config.models.registry[alias], self.get, self._log)
        return models
