# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""What the tests of the web page share."""

import socket

import pytest


@pytest.fixture
def no_such_host(monkeypatch):
    """Lets every name be that of no host, without asking the network."""

    def fail(*arguments, **options):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
