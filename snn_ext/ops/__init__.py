"""The operators ``torch.ops.snn_ext.*`` over ``[T, ...]``, and who runs them.

`operators` declares them (schema, shapes, autograd), `dispatch` says which implementation runs: `reference`
in plain torch, or `native`, which calls the C core in ``c/`` as `calls` describes.
"""

from . import operators as _operators  # noqa: F401  (registers the operators)
