"""The network that workers of torch.distributed talk over: the one by which Ray knows their machines."""

from __future__ import annotations

import os

import psutil
from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend
from ray.train.v2._internal.execution.worker_group import WorkerGroup
from ray.util import get_node_ip_address

GLOO_INTERFACE = "GLOO_SOCKET_IFNAME"


class RayNetworkConfig(TorchConfig):
    """Ray Train's set-up of torch.distributed, with gloo on Ray's network.

    By itself gloo offers the address that the machine's name resolves to, which is often 127.0.0.1 or 127.0.1.1: then
    workers on two machines never connect. Where `GLOO_SOCKET_IFNAME` is set on a node, it stays.
    """

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        """Return the backend that Ray Train sets up on the workers."""
        return _RayNetwork


class _RayNetwork(_TorchBackend):
    def on_start(self, worker_group: WorkerGroup, backend_config: TorchConfig) -> None:
        worker_group.execute(choose_interface)  # first: gloo reads the variable when the group is formed
        super().on_start(worker_group, backend_config)


def choose_interface() -> None:
    """Let gloo use the interface that has this node's address in Ray."""
    if name := interface_of(get_node_ip_address()):
        os.environ.setdefault(GLOO_INTERFACE, name)


def interface_of(address: str) -> str | None:
    """Return the name of the interface with this address; None without one, as in a container behind a NAT."""
    interfaces = psutil.net_if_addrs()
    return next((name for name, has in interfaces.items() if address in {one.address for one in has}), None)
