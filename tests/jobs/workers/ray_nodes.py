"""A Ray cluster of several nodes that runs until standard input ends: `python ray_nodes.py 3`.

Prints its address, then the process of each node that can work.
"""

from __future__ import annotations

import os
import sys

from ray.cluster_utils import Cluster


def main() -> None:
    """Start a head node without CPUs, and nodes with one CPU."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=1, wait=False) for _ in range(int(sys.argv[1]))]
    cluster.wait_for_nodes()
    raylets = [node.all_processes["raylet"][0].process.pid for node in nodes]
    os.write(1, " ".join(map(str, [cluster.address, *raylets])).encode() + b"\n")
    sys.stdin.read()
    cluster.shutdown()


if __name__ == "__main__":
    main()
