"""Where Ray places the K episodes of a run: one placement group, a bundle an episode, on many nodes or on few."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from rlcas.config import ClusterConfig
from rlcas.errors import UserError

RAY_DIGITS = 4
"""Decimals of an amount that Ray keeps."""
Resources = Mapping[str, float]
"""CPUs and GPUs, as Ray names them."""
NodeResources = tuple[str, Resources]
"""A node's name, and what it has."""


def reserve(bundle: Resources, k: int, cluster: ClusterConfig) -> PlacementGroup:
    """Return a placement group that reserves `bundle` for each of K episodes; on failure nothing stays reserved.

    Raises:
        UserError: the nodes have no room for it, or not within `cluster.start_timeout_seconds`.
    """
    check_room(bundle, k, nodes_of_ray())  # first: Ray would only wait for a group that never fits
    group = placement_group([dict(bundle)] * k, strategy=cluster.placement.upper())
    waited = cluster.start_timeout_seconds
    try:
        ready, _ = ray.wait([group.ready()], timeout=waited)
        if not ready:
            raise UserError(
                f"{_asked(bundle, k)}, which was not free within cluster.start_timeout_seconds {waited:g}; free are "
                f"{_described(_free(), bundle)}: free or add nodes, lower sampler.k, or wait longer"
            )
    except BaseException:
        remove_placement_group(group)  # else a waiting group takes what others free
        raise
    return group


def nodes_of_ray() -> list[NodeResources]:
    """Return the nodes that are alive, with all that each has."""
    return [(node["NodeName"], node["Resources"]) for node in ray.nodes() if node["Alive"]]


def check_room(bundle: Resources, k: int, nodes: Sequence[NodeResources]) -> None:
    """Refuse K bundles that would not fit even if the nodes were idle: each must fit on one node.

    Raises:
        UserError: they do not fit, though all nodes together may have enough; the text has the arithmetic.
    """
    if sum(room(bundle, has) for _, has in nodes) < k:
        raise UserError(
            f"{_asked(bundle, k)}, each on one node; the nodes have {_described(nodes, bundle)}: lower "
            "cluster.threads_per_episode, cluster.gpus_per_episode or sampler.k, or add nodes"
        )


def room(bundle: Resources, has: Resources) -> int:
    """Return how many bundles fit on a node with these resources."""
    # Ray counts in whole units, and so avoids rounding: 0.1 three times must fit into 0.3.
    unit = 10**RAY_DIGITS
    return min(round(has.get(kind, 0.0) * unit) // round(amount * unit) for kind, amount in bundle.items())


def fitting(amounts: Resources) -> dict[str, float]:
    """Return the amounts in the decimals that Ray keeps, rounded down, so that six times a sixth fits into one."""
    # Rounded before the floor: 0.57 * 10**4 is 5699.999999999999.
    unit = 10**RAY_DIGITS
    return {kind: math.floor(round(amount * unit, 3)) / unit for kind, amount in amounts.items() if amount}


def describe_resources(resources: Resources) -> str:
    """Return "1 CPU and 0.5 GPU"."""
    return " and ".join(f"{resources.get(kind, 0):g} {kind}" for kind in ("CPU", "GPU"))


def _asked(bundle: Resources, k: int) -> str:
    return f"sampler.k {k} episodes ask {describe_resources(bundle)} each"


def _described(nodes: Sequence[NodeResources], bundle: Resources) -> str:
    """Return "2 CPU and 0 GPU (room for 2) on a, b; 1 CPU and 0 GPU (room for 1) on c"."""
    alike: dict[str, list[str]] = {}
    for name, has in nodes:
        alike.setdefault(f"{describe_resources(has)} (room for {room(bundle, has)})", []).append(name)
    return "; ".join(f"{has} on {', '.join(names)}" for has, names in alike.items())


def _free() -> list[NodeResources]:
    free = ray._private.state.available_resources_per_node()  # Ray has no public name for it (2.60)
    return [(node["NodeName"], free.get(node["NodeID"], {})) for node in ray.nodes() if node["Alive"]]
