"""Keys from a secret store, reloaded when a provider rejects one."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from dspy.utils.exceptions import LMAuthError

from dspy_lambda.dspy_patches.own_models import renew_keys
from dspy_lambda.errors import ConfigError

if TYPE_CHECKING:
    from dspy_lambda.call import Call
    from dspy_lambda.config import Config
    from dspy_lambda.models.registry import ProgramLM
    from dspy_lambda.process import ProcessState
    from dspy_lambda.settings import Settings
    from dspy_lambda.telemetry.telemetry import Telemetry

_MIN_SECONDS = 60.0  # between two reloads, to limit the cost of a wrong key


class Keys:
    """Notes a rejected key, and reloads all keys before the next invocation's calls.

    Args:
        process: accepts reloaded variables as its expected state.

    Attributes:
        names: the variables whose values came from a secret store.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        settings: Settings,
        config: Config,
        models: Mapping[str, ProgramLM],
        process: ProcessState,
        telemetry: Telemetry,
    ) -> None:
        self.names = names
        self._settings = settings
        self._config = config
        self._models = models
        self._process = process
        self._telemetry = telemetry
        self._refused = False
        self._values = {name: os.environ.get(name, "") for name in names}
        self._read = time.time()  # the wall clock: other clocks may stop while the environment is frozen

    def note_refused(self, calls: Iterable[Call]) -> None:
        """Note if a provider rejected a key in one of these calls; reload later, because the caller is waiting."""
        if self.names and any(isinstance(call.lm_error, LMAuthError) for call in calls):
            self._refused = True

    def renew_refused(self) -> None:
        """Reload the keys if one was rejected, at most once a minute."""
        if not self._refused or time.time() - self._read < _MIN_SECONDS:
            return
        from dspy_lambda.secrets import renew

        self._read = time.time()  # even if reloading fails
        before = {name: os.environ.get(name) for name in self.names}
        try:
            fresh = renew(self._settings, self.names)
        except ConfigError as error:
            self._telemetry.log("ERROR", "the keys could not be reloaded", {"reason": str(error)})
            return
        self._refused = False
        self.apply(fresh)
        changed = [name for name in self.names if fresh.get(name) != before[name]]
        self._telemetry.log("INFO", "reloaded the keys after a provider rejected one", {"changed": changed})

    def apply(self, variables: Mapping[str, str]) -> None:
        """Set the models' keys that have changed, also those of programs' own LMs; running calls keep theirs."""
        self._read = time.time()
        self._process.note(variables)  # otherwise they are restored as a program's change
        for alias, lm in self._models.items():
            if key := variables.get(self._config.models.registry[alias].env or ""):
                lm.kwargs["api_key"] = key
        renew_keys({old: variables[name] for name, old in self._values.items() if variables.get(name, old) != old})
        self._values.update(variables)
        self._telemetry.exceptions.redact(variables.values())
