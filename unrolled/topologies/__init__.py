"""The topologies: where inputs enter the unrolled chain and where outputs leave it. They know no data format."""

from unrolled.topologies.decoder import Decoder
from unrolled.topologies.many_to_many import ManyToMany
from unrolled.topologies.many_to_one import ManyToOne
from unrolled.topologies.memory import Memory
from unrolled.topologies.one_to_many import OneToMany
from unrolled.topologies.one_to_one import OneToOne
from unrolled.topologies.sequence_to_sequence import SequenceToSequence

__all__ = ["Decoder", "ManyToMany", "ManyToOne", "Memory", "OneToMany", "OneToOne", "SequenceToSequence"]
