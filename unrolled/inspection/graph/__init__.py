"""The unrolled computational graph: as data (`nodes.py`, of a `plan.py`), and as a picture."""

from unrolled.inspection.graph.nodes import Edge, Graph, Node, unroll
from unrolled.inspection.graph.picture import draw, save
from unrolled.inspection.graph.plan import TOPOLOGIES, Plan, plan_of

__all__ = ["TOPOLOGIES", "Edge", "Graph", "Node", "Plan", "draw", "plan_of", "save", "unroll"]
