"""Five epochs on clusters that lose nodes; prints the outcome as JSON.

First the node with all actors is lost twice, then one of three, and another is added.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import threading

import ray
import trivial
from ray.cluster_utils import Cluster
from test_trials import left_behind

EPOCHS, K = 5, 3
EPISODE_SECONDS = 2.0
"""Where a node is lost meanwhile."""


def main() -> None:
    noticed_soon = {"health_check_period_ms": 1000}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": noticed_soon})
    first = cluster.add_node(num_cpus=4, num_gpus=2)
    os.environ["RAY_ADDRESS"] = cluster.address
    demand = refused_demand()
    ray.init(log_to_driver=False)
    ray.cloudpickle.register_pickle_by_value(trivial)
    records, weights, fetched = with_lost_nodes(cluster, first)
    expected, undisturbed = train(build(episode_runner="in_process"))
    facts = {
        "same_bits": same_bits(records, weights, expected, undisturbed),
        "retries": [record.retries for record in records],
        "demand": demand,
        "fetched": fetched,
    }
    cluster.add_node(num_cpus=4)
    cluster.add_node(num_cpus=4)
    records, weights, nodes = with_one_lost_of_three(cluster)
    of_three = {
        "same_bits": same_bits(records, weights, expected, undisturbed),
        "retries": [record.retries for record in records],
        "nodes": nodes,
        "packed": packed(),
        "left_behind": sorted(left_behind(set())),
    }
    print(json.dumps({**facts, "of_three": of_three}))
    ray.shutdown()
    cluster.shutdown()


def refused_demand():
    """Ask the cluster for more GPUs than it says that it has."""
    from cluster.runtime.resources import check_demand
    from rlcas.config import RunConfig
    from rlcas.errors import UserError

    try:
        check_demand(RunConfig.model_validate({"cluster": {"gpus_per_episode": 1}}))
    except UserError as error:
        return str(error)
    return "not refused"


def same_bits(records, weights, expected, undisturbed):
    """Return for each epoch whether the reports are the same, for the last the weights too."""
    same = [one.reports == other.reports for one, other in zip(records, expected, strict=True)]
    same[-1] &= weights == undisturbed
    return same


def build(sleep_seconds=0.0, **cluster):
    from cluster import RLCASConfig

    factory = functools.partial(trivial.TrivialTrainer, num_weights=200_000, sleep_seconds=sleep_seconds)
    return (
        RLCASConfig()
        .training(k=K, epochs=EPOCHS, lr=0.05)
        .episodes(trainer_factory=factory, num_classes=4, gpus_per_episode=0, threads_per_episode=1, **cluster)
        .debugging(seed=5, log_level="ERROR")
        .build_algo()
    )


def train(algorithm, before=lambda epoch: None):
    records = []
    for epoch in range(1, EPOCHS + 1):
        before(epoch)
        algorithm.train()
        records.append(algorithm.record)
    weights = algorithm.incumbent.arrays["float32"].tobytes()
    algorithm.stop()
    return records, weights


def nodes_of(algorithm):
    """Return the id of the node of each actor."""

    def here(self):
        return ray.get_runtime_context().get_node_id()

    actors = algorithm._runner._actors
    return ray.get([actor.__ray_call__.options(max_task_retries=-1).remote(here) for actor in actors])


def packed():
    """Return on how many nodes the actors are that are to be together."""
    algorithm = build(placement="pack")
    nodes = nodes_of(algorithm)
    algorithm.stop()
    return len(set(nodes))


def references_of_last_epoch(algorithm):
    """Return a list that will hold references to the trained incumbents of the last epoch."""
    train_epoch, references = algorithm._runner.train_epoch, []

    def recording(*arguments):
        reports, trained = train_epoch(*arguments)
        references[:] = trained
        return reports, trained

    algorithm._runner.train_epoch = recording
    return references


def fetched_by_driver(algorithm, references, head):
    """Return for each episode whether its incumbent came to the driver's node, the winner's first; forget them."""
    references.insert(0, references.pop(algorithm.record.winner))
    places = ray.experimental.get_object_locations(references)
    fetched = [head in places[reference]["node_ids"] for reference in references]
    references.clear()
    del algorithm._runner.train_epoch
    return fetched


def with_lost_nodes(cluster, first):
    """Lose the node in the middle of epoch 2, and the next one in epoch 4, once its winner is chosen.

    Returns also what came to the driver's node of epoch 1.
    """
    from cluster.episodes import handover as module

    algorithm = build(EPISODE_SECONDS)
    nodes, choose = [first], module.choose
    references, fetched = references_of_last_epoch(algorithm), []

    def lose():
        cluster.remove_node(nodes.pop(0), allow_graceful=False)

    def before(epoch):
        if epoch == 2:
            fetched.extend(fetched_by_driver(algorithm, references, cluster.head_node.node_id))
        if epoch in (2, 4):
            nodes.append(cluster.add_node(num_cpus=4))
        if epoch == 2:
            threading.Timer(0.2, lose).start()
        if epoch == 4:
            module.choose = choose_and_lose

    def choose_and_lose(reports, metric):
        module.choose = choose
        lose()
        return choose(reports, metric)

    return *train(algorithm, before), fetched


def with_one_lost_of_three(cluster):
    """Lose one of three nodes in the middle of epoch 2 and add one before epoch 4; return where the actors were."""
    algorithm = build(EPISODE_SECONDS)
    nodes, lost = {1: nodes_of(algorithm)}, threading.Event()

    def lose():
        (node,) = [node for node in cluster.worker_nodes if node.node_id == nodes[1][0]]
        cluster.remove_node(node, allow_graceful=False)
        lost.set()

    def before(epoch):
        if epoch == 2:
            threading.Timer(0.2, lose).start()
        if epoch == 3:
            assert lost.is_set()
            nodes[epoch] = nodes_of(algorithm)
        if epoch == 4:
            cluster.add_node(num_cpus=4)

    return *train(algorithm, before), nodes


if __name__ == "__main__":
    sys.exit(main())
