"""The rules for tables, one family a file, tried in this order: the first that proves exact is applied."""

from collections.abc import Callable

from vkfuse.rewrite.constants import Constants
from vkfuse.rewrite.decisions import Proposal
from vkfuse.rewrite.rules.convolutions import propose_q8_convolution
from vkfuse.rewrite.rules.dynamic_matmuls import propose_dq8ca_linear
from vkfuse.rewrite.rules.lookups import (
    propose_gathered_rows,
    propose_nibble_rows,
    propose_q4_lookup,
    propose_shared_scales,
)
from vkfuse.rewrite.rules.matmuls import (
    propose_q4_linear,
    propose_q4_planes,
    propose_q8_linear,
    propose_q8_planes,
)
from vkfuse.rewrite.sites import Site, Table
from vkfuse.tables.decisions import Refusal
from vkfuse.tables.readers import Consumer

Rule = Callable[[Site, Table, Constants], Proposal | Refusal]

RULES: dict[Consumer, tuple[Rule, ...]] = {
    Consumer.GATHER: (propose_shared_scales, propose_q4_lookup, propose_nibble_rows, propose_gathered_rows),
    Consumer.MATMUL: (
        propose_dq8ca_linear,
        propose_q4_linear,
        propose_q4_planes,
        propose_q8_linear,
        propose_q8_planes,
    ),
    Consumer.CONVOLVE: (propose_q8_convolution,),
}
