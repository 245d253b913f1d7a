"""The keys that came from a secret store, read again once a provider refuses one."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from dspy.utils.exceptions import LMAuthError

from dspy_lambda.errors import ConfigError

if TYPE_CHECKING:
    from dspy_lambda.call import Call
    from dspy_lambda.config import Config
    from dspy_lambda.models.registry import ProgramLM
    from dspy_lambda.process import ProcessState
    from dspy_lambda.settings import Settings
    from dspy_lambda.telemetry.telemetry import Telemetry

_LEAST_SECONDS = 60.0  # between two readings: a wrong key costs no more than that


class Keys:
    """Notes a refused key, and renews all of them before the next invocation's calls.

    Args:
        process: takes renewed variables for what they are to be.

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
        self._read = time.time()  # by the wall clock: others may stand still while the environment is frozen

    def note_refused(self, calls: Iterable[Call]) -> None:
        """See whether a provider refused a key in one of these calls. Its caller waits: nothing is read now."""
        if self.names and any(isinstance(call.lm_error, LMAuthError) for call in calls):
            self._refused = True

    def renew_refused(self) -> None:
        """Read the keys again if one was refused, at most once a minute."""
        if not self._refused or time.time() - self._read < _LEAST_SECONDS:
            return
        from dspy_lambda.secrets import renew

        self._read = time.time()  # whether it works or not
        before = {name: os.environ.get(name) for name in self.names}
        try:
            fresh = renew(self._settings, self.names)
        except ConfigError as error:
            self._telemetry.log("ERROR", "the keys cannot be read again", {"reason": str(error)})
            return
        self._refused = False
        self.use(fresh)
        changed = [name for name in self.names if fresh.get(name) != before[name]]
        self._telemetry.log("INFO", "a provider refused a key; the keys were read again", {"changed": changed})

    def use(self, variables: Mapping[str, str]) -> None:
        """Give the models keys that have changed since; calls under way keep theirs."""
        self._read = time.time()
        self._process.note(variables)  # or they would be put back as a program's doing
        for alias, lm in self._models.items():
            if key := variables.get(self._config.models.registry[alias].env or ""):
                lm.kwargs["api_key"] = key
        self._telemetry.exceptions.hide(variables.values())
