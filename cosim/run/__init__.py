"""Runs: many processes, started, watched and stopped.

The public function ``cosim.run(...)`` and this package share a name. The package is therefore
callable, so that ``cosim.run(...)`` works whichever of the two was touched first.
"""

import sys
from types import ModuleType
from typing import Any


class _CallablePackage(ModuleType):
    """The package ``cosim.run``; a call is a call of :func:`cosim.run.api.run`."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run a topology to its end and return the result: see :func:`cosim.run.api.run`."""
        from cosim.run.api import run

        return run(*args, **kwargs)


sys.modules[__name__].__class__ = _CallablePackage
