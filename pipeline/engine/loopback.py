"""The services of Beam's local runner on the loopback interface alone.

Beam lets them listen on all interfaces, without credentials, its artifact service among them, which hands out any file
that this process may read. Workers of this machine need no more than loopback.
"""

from types import ModuleType
from typing import Any

import grpc
from apache_beam.runners.portability import local_job_service
from apache_beam.runners.portability.fn_api_runner import worker_handlers

_EVERYWHERE = ("[::]:", "0.0.0.0:")


def keep_to_loopback(*modules: ModuleType) -> None:
    """From now on every service that the local runner, or one of Beam's modules, starts here listens on loopback."""
    for module in (worker_handlers, local_job_service, *modules):
        if not isinstance(module.grpc, _Grpc):
            module.grpc = _Grpc()


class _Grpc:
    """The module grpc, but for its servers."""

    def server(self, *args: Any, **kwargs: Any) -> "_Server":
        return _Server(grpc.server(*args, **kwargs))

    def __getattr__(self, name: str) -> Any:
        return getattr(grpc, name)


class _Server:
    """A gRPC server that turns "all interfaces" into loopback."""

    def __init__(self, server: Any) -> None:
        self._server = server

    def add_insecure_port(self, address: str) -> int:
        for everywhere in _EVERYWHERE:
            if address.startswith(everywhere):
                address = f"localhost:{address.removeprefix(everywhere)}"
        return int(self._server.add_insecure_port(address))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._server, name)
