"""The topologies: where inputs enter the unrolled chain and where outputs leave it. They know no data format."""

from unrolled.topologies.many_to_many import ManyToMany
from unrolled.topologies.one_to_one import OneToOne

__all__ = ["ManyToMany", "OneToOne"]
