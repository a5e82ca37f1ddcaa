"""The interface that gloo is given; `tests/test_nodes.py` trains over it on machines of a network."""

from __future__ import annotations

import os
import socket

import pytest

from cluster.runtime import gloo_interface


def test_an_interface_is_found_by_its_address() -> None:
    found = gloo_interface.interface_of("127.0.0.1")
    assert found in {name for _, name in socket.if_nameindex()} and found.startswith("lo")


def test_an_address_of_no_interface_leaves_the_choice_to_gloo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(gloo_interface.GLOO_INTERFACE, raising=False)
    monkeypatch.setattr(
        gloo_interface, "get_node_ip_address", lambda: "192.0.2.1"
    )  # of documentation, nobody's
    gloo_interface.choose_interface()
    assert gloo_interface.GLOO_INTERFACE not in os.environ


def test_what_a_node_says_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gloo_interface, "get_node_ip_address", lambda: "127.0.0.1")
    monkeypatch.setenv(gloo_interface.GLOO_INTERFACE, "ib0")
    gloo_interface.choose_interface()
    assert os.environ[gloo_interface.GLOO_INTERFACE] == "ib0"
    monkeypatch.delenv(gloo_interface.GLOO_INTERFACE)
    gloo_interface.choose_interface()
    assert os.environ[gloo_interface.GLOO_INTERFACE] == gloo_interface.interface_of("127.0.0.1")
