"""The operators ``torch.ops.snn_ext.*`` over ``[T, ...]``, and who runs them.

`vsn` declares an operator (schema, shapes, autograd), `reference` computes it in plain torch, and
`dispatch` says which implementation runs.
"""

from . import vsn as _vsn  # noqa: F401  (registers the operators)
