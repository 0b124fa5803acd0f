"""The engines: how a cell is unrolled over time."""

from unrolled.engines.auto import ENGINES, auto_order, choose, said
from unrolled.engines.engine import Engine

__all__ = ["ENGINES", "Engine", "auto_order", "choose", "said"]
