"""The operators ``torch.ops.snn_ext.*`` over ``[T, ...]``, and who runs them.

`operators` declares them (schema, shapes, autograd), `reference` computes them in plain torch, and
`dispatch` says which implementation runs.
"""

from . import operators as _operators  # noqa: F401  (registers the operators)
