"""What limits a run on a cluster: an epoch by the model in `scaling_model.py`, from small to 1000 classes on 8 nodes.

Unit costs are those measured on one machine, in docs/scaling_costs.json; the machines of the cluster are assumptions
(`scaling_inputs.Cluster`) that options change. `--write` updates the tables of docs/scaling.md.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from common import parser
from scaling_inputs import Cluster, Costs, Job, costs_of
from scaling_model import efficiency, mean_added, seconds_by_part, simulate

from rlcas.config import SamplerConfig

DOCS = Path(__file__).parent.parent / "docs"
COSTS_FILE, PAGE = DOCS / "scaling_costs.json", DOCS / "scaling.md"
VAL_SHARE = 8
"""Training images for each validation image."""
RESNET50_STATE = 3 * 25.6e6 * 4
"""Weights and AdamW's moments in float32."""
FEW_SYNTHETIC = SamplerConfig(initial_count=0, action_step=1, max_count=1)
"""At most one synthetic image of each class in a mini-batch."""


def job(k: int, num_classes: int, num_images: int, *, size_px: int = 64, channels: int = 3) -> Job:
    """Return a run with the defaults of rlcas.

    Args:
        k: episodes an epoch.
        num_classes: C.
        num_images: training images.
        size_px: side of the images.
        channels: channels of the images.
    """
    return Job(
        k=k,
        num_classes=num_classes,
        num_images=num_images,
        num_val_images=num_images // VAL_SHARE,
        image_bytes=channels * size_px**2,
        added=mean_added(SamplerConfig(), num_classes),
    )


def few_synthetic(of: Job, batch_size: int = 2048, val_images: int = 50_000) -> Job:
    """Return the job with large mini-batches, FEW_SYNTHETIC, and at most `val_images` validation images."""
    return dataclasses.replace(
        of,
        batch_size=batch_size,
        added=mean_added(FEW_SYNTHETIC, of.num_classes),
        num_val_images=min(of.num_val_images, val_images),
    )


LARGE = job(64, 1000, 10_000_000)
LARGE_FEW_SYNTHETIC = few_synthetic(job(64, 1000, 10_000_000, channels=1))
CASES: dict[str, tuple[Job, int]] = {
    "classes_8_k3": (job(3, 8, 10_000), 1),
    "classes_100_k8": (job(8, 100, 100_000), 1),
    "classes_1000_k8": (job(8, 1000, 1_000_000), 1),
    "classes_1000_k64": (job(64, 1000, 1_000_000), 8),
    "target": (LARGE, 8),
    "target_dosed": (LARGE_FEW_SYNTHETIC, 8),
    "target_dosed_4_nodes": (LARGE_FEW_SYNTHETIC, 4),
    "target_dosed_resnet50": (dataclasses.replace(LARGE_FEW_SYNTHETIC, state_bytes=RESNET50_STATE), 8),
}
"""Name -> (job, nodes); `target` is the question of docs/scaling.md."""
KS, NODES, SIGMAS = (3, 8, 16, 32, 64), (1, 2, 4, 8), (0.0, 0.1, 0.3)
LEAST = 0.001
TIMES = {
    "epoch_hours": "epoch, h",
    "efficiency": "efficiency",
    "train_seconds": "train, s",
    "validate_seconds": "validate, s",
    "wait_seconds": "wait, s",
    "network_seconds": "network, s",
    "hand_over_seconds": "hand over, s",
    "engine_seconds": "engine, s",
    "read_seconds": "first reading, s",
}
SIZES = {
    "network_gb": "network",
    "store_gb": "object store",
    "driver_gb": "driver",
    "workers_gb": "workers",
    "images_gb": "images",
    "gpu_gb": "one GPU",
    "checkpoint_gb": "checkpoint",
}
"""Figure -> column of the page."""


def cases(costs: Costs, assumed: Cluster) -> dict[str, dict[str, float]]:
    """Return all figures of each case."""
    return {name: _figures(case, nodes, costs, assumed) for name, (case, nodes) in CASES.items()}


def _figures(case: Job, nodes: int, costs: Costs, assumed: Cluster) -> dict[str, float]:
    figures = simulate(case, dataclasses.replace(assumed, nodes=nodes), costs)
    return {"epoch_hours": figures["epoch_seconds"] / 3600, **figures}


def by_nodes(of: Job, costs: Costs, assumed: Cluster) -> dict[str, dict[str, float]]:
    """Return the hours of an epoch of a job by K and nodes."""
    return {
        f"hours_k{k}": {
            f"nodes_{nodes}": sum(
                seconds_by_part(
                    dataclasses.replace(of, k=k), dataclasses.replace(assumed, nodes=nodes), costs
                ).values()
            )
            / 3600
            for nodes in NODES
        }
        for k in KS
    }


def by_spread(of: Job, costs: Costs, assumed: Cluster) -> dict[str, dict[str, float]]:
    """Return the efficiency of a job on all nodes by K and the spread of its episodes' seconds."""
    return {
        f"efficiency_k{k}": {
            f"sigma_{sigma:g}": efficiency(
                dataclasses.replace(of, k=k),
                dataclasses.replace(assumed, nodes=max(NODES), straggler_sigma=sigma),
                costs,
            )
            for sigma in SIGMAS
        }
        for k in KS
    }


def tables(costs: Costs, assumed: Cluster) -> list[str]:
    """Return the tables of docs/scaling.md: times, sizes, hours by nodes, efficiency by spread."""
    figures = cases(costs, assumed)
    nodes, spread = (
        by_nodes(LARGE_FEW_SYNTHETIC, costs, assumed),
        by_spread(LARGE_FEW_SYNTHETIC, costs, assumed),
    )
    return [
        markdown("time", TIMES.values(), {name: [row[key] for key in TIMES] for name, row in figures.items()}),
        markdown("GB", SIZES.values(), {name: [row[key] for key in SIZES] for name, row in figures.items()}),
        markdown("nodes", map(str, NODES), {name: list(row.values()) for name, row in nodes.items()}),
        markdown("σ", map(str, SIGMAS), {name: list(row.values()) for name, row in spread.items()}),
    ]


def markdown(head: str, columns: Iterable[str], rows: Mapping[str, list[float]]) -> str:
    """Return rows of numbers as a Markdown table."""
    names = list(columns)
    lines = ["| " + " | ".join([head, *names]) + " |", "|---" + "|--:" * len(names) + "|"]
    lines += ["| " + " | ".join([f"`{name}`", *map(short, row)]) + " |" for name, row in rows.items()]
    return "\n".join(lines)


def short(number: float) -> str:
    """Return a number with two or three significant digits."""
    if 0 < number < LEAST:
        return f"< {LEAST}"
    return f"{number:,.0f}" if number >= 100 else f"{number:.1f}" if number >= 10 else f"{number:.2g}"


def put(page: str, table: str) -> str:
    """Return the page with its table of the same head replaced."""
    head = table.partition("\n")[0]
    page, number = re.subn(re.escape(head) + r"(?:\n\|.*)*", lambda _: table, page)
    assert number == 1, f"the page has {number} tables with the head {head}"
    return page


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--costs", type=Path, default=COSTS_FILE, help="output of scaling_costs.py --json")
    arguments.add_argument("--images-per-second", type=float, default=Cluster.images_per_second)
    arguments.add_argument("--gpus-per-node", type=int, default=Cluster.gpus_per_node)
    arguments.add_argument("--network-gb-per-second", type=float, default=Cluster.network_gb_per_second)
    arguments.add_argument("--storage-gb-per-second", type=float, default=Cluster.storage_gb_per_second)
    arguments.add_argument("--straggler-sigma", type=float, default=Cluster.straggler_sigma)
    arguments.add_argument("--write", action="store_true", help="update the tables of docs/scaling.md")
    options = arguments.parse_args()
    costs = costs_of(json.loads(options.costs.read_text(encoding="utf-8")))
    given = {field.name: getattr(options, field.name, field.default) for field in dataclasses.fields(Cluster)}
    assumed = Cluster(**given)
    page_tables = tables(costs, assumed)
    if options.write:
        PAGE.write_text(functools.reduce(put, page_tables, PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    if options.json:
        results = cases(costs, assumed)
        spread = by_spread(LARGE_FEW_SYNTHETIC, costs, assumed)
        print(json.dumps({**results, **by_nodes(LARGE_FEW_SYNTHETIC, costs, assumed), **spread}))
    else:
        print("\n\n".join(page_tables))


if __name__ == "__main__":
    main()
