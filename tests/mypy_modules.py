"""A plugin of mypy: what somebody else put on a PyTorch module may be anything.

PyTorch says that every attribute that a class does not declare is a tensor or a module, which makes
a fault of each `model.config.grid_size` and of each method of a block in a `ModuleList`.
"""

from __future__ import annotations

from collections.abc import Callable

from mypy.plugin import AttributeContext, Plugin
from mypy.types import AnyType, Type, TypeOfAny

MODULE = "torch.nn.modules.module.Module."


def anything(context: AttributeContext) -> Type:
    """Take the place of the declared type."""
    return AnyType(TypeOfAny.special_form)


class ModuleAttributes(Plugin):
    """Asked by mypy for each attribute."""

    def get_attribute_hook(self, fullname: str) -> Callable[[AttributeContext], Type] | None:
        """Return what decides on the type of an attribute, or None for the usual way."""
        return anything if fullname.startswith(MODULE) else None


def plugin(version: str) -> type[Plugin]:
    """Called by mypy."""
    return ModuleAttributes
