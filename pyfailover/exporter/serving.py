# SPDX-License-Identifier: GPL-2.0-or-later
"""Answering scrapes: the port, TLS, one thread for each client.

Not prometheus_client's server: that starts its thread at once, with all that the
process may do at that time, and one client that does not shake hands keeps all
others waiting.
"""

import logging
import socket
import ssl
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import CollectorRegistry

from pyfailover.errors import ConfigError, PyFailoverError
from pyfailover.exporter.address import parse_address
from pyfailover.exporter.text import CONTENT_TYPE, to_text

log = logging.getLogger(__name__)

_PATIENCE_S = 10.0  # with a client that says or reads nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """Files, as PEM: what we show, and whose clients we answer (None: all)."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def context(self) -> ssl.SSLContext:
        """As the ssl module wants it.

        Raises:
            ConfigError: a file cannot be used; says which.
        """
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            what = f"the certificate '{self.certificate}' with the key '{self.key}'"
            made.load_cert_chain(self.certificate, self.key)
            if self.client_ca is not None:
                what = f"the client CA '{self.client_ca}'"
                made.load_verify_locations(self.client_ca)
                made.verify_mode = ssl.CERT_REQUIRED
        except OSError as exc:  # ssl.SSLError is one, too
            cause = exc.strerror or str(exc)
            raise ConfigError(
                f"cannot use {what}: {cause}", hint="PEM files that belong together"
            ) from exc
        return made


class Server(ThreadingMixIn, WSGIServer):
    """Listens from the start, answers while serve_forever() runs.

    Raises:
        ConfigError: there is no such address, or the files of TLS are no good.
        PyFailoverError: the port is taken, or not for us.
    """

    daemon_threads = True
    request_queue_size = 16

    def __init__(
        self, address: str, tls: Tls | None, registry: CollectorRegistry
    ) -> None:
        host, port = parse_address(address)
        self._tls = None if tls is None else tls.context()
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            self.address_family, at = found[0][0], found[0][4]
            super().__init__((str(at[0]), int(at[1])), _Silent)
        except OSError as exc:
            raise PyFailoverError(
                f"cannot listen on '{address}': {exc.strerror}",
                hint="another --listen HOST:PORT",
            ) from exc
        self.set_app(partial(_answer, registry))

    def server_bind(self) -> None:
        """Bind, without asking the DNS for our name as HTTPServer does."""
        TCPServer.server_bind(self)
        host, port = self.server_address[:2]
        self.server_name, self.server_port = str(host), int(port)
        self.setup_environ()

    def get_request(self) -> tuple[socket.socket, Any]:
        """A client; it shakes hands in its own thread, with its first byte."""
        client, address = super().get_request()
        if self._tls is not None:
            client = self._tls.wrap_socket(
                client, server_side=True, do_handshake_on_connect=False
            )
        return client, address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client left, or may not ask."""
        log.info(
            "a client at %s is not answered: %r", client_address, sys.exc_info()[1]
        )


def _answer(
    registry: CollectorRegistry, _: WSGIEnvironment, start: StartResponse
) -> list[bytes]:
    """A scrape as plain text, whatever is asked for: OpenMetrics takes half as long
    again to write, and to compress it would take longer than all the rest."""
    body = to_text(registry.collect())
    head = [("Content-Type", CONTENT_TYPE), ("Content-Length", str(len(body)))]
    start("200 OK", head)
    return [body]


class _Silent(WSGIRequestHandler):
    timeout = _PATIENCE_S

    def log_message(self, *_: object) -> None:
        """A scrape is nothing to tell of."""
