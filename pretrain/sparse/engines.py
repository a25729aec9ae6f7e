"""The two interpreters of a traced network: both take the mask layout as an argument."""

import torch
from torch import fx, nn

from pretrain.masking import VisibleLayout, expand_mask
from pretrain.sparse.convolution import packed_convolution
from pretrain.sparse.operations import MODULES
from pretrain.sparse.pooling import packed_max_pool
from pretrain.sparse.recompute import NormedActivation, can_be_made_again, keeping

# Counterparts that keep nothing of their input but the input itself.
_THRIFTY = (packed_convolution, packed_max_pool)


class _Interpreter(fx.Interpreter):
    """Runs a traced graph, each module through its sparse counterpart."""

    counterpart: str

    def __init__(self, network, graph, layout):
        super().__init__(network, graph=graph)
        self.layout = layout

    def call_module(self, target, args, kwargs):
        module = self.fetch_attr(target)
        operation = MODULES.get(type(module))
        if operation is None:
            # A module that touches no feature map (say, on a parameter): trace() has checked the others.
            return module(*args, **kwargs)
        return getattr(operation, self.counterpart)(module, *args, self.layout, **kwargs)


class _Packed(_Interpreter):
    """Runs the packed counterparts, and lets convolutions keep recipes of their inputs where there are any."""

    counterpart = 'packed'

    def run_node(self, node):
        self._recipe, self._recipes = None, getattr(self, '_recipes', {})
        source = node.args[0] if node.args and isinstance(node.args[0], fx.Node) else None
        self._source_recipe = self._recipes.get(source)
        result = super().run_node(node)
        if self._recipe is not None:
            self._recipes[node] = self._recipe
        return result

    def call_module(self, target, args, kwargs):
        module, recipe = self.fetch_attr(target), self._source_recipe
        if not torch.is_grad_enabled() or kwargs or len(args) != 1:
            return super().call_module(target, args, kwargs)
        if can_be_made_again(module):
            self._recipe = NormedActivation(module, args[0])
        elif recipe is not None and type(module) is nn.Identity:
            self._recipe = recipe
        elif recipe is not None and type(module) is nn.ReLU and recipe.activation is None:
            self._recipe = recipe.followed_by(nn.functional.relu)
            with keeping(self._recipe, args[0]):
                return module(args[0])
        elif recipe is not None and getattr(MODULES.get(type(module)), 'packed', None) in _THRIFTY:
            with keeping(recipe, args[0]):
                return super().call_module(target, args, kwargs)
        return super().call_module(target, args, kwargs)


class _Reference(_Interpreter):
    counterpart = 'reference'


def run_packed(network: nn.Module, graph: fx.Graph, image_B3HW: torch.Tensor,
               layout: VisibleLayout) -> list[torch.Tensor]:
    """Compute the visible patches only.

    Returns:
        list of packed maps ``x_NCbb``, one for each output of the network.
    """
    return _Packed(network, graph, layout).run(layout.pack(image_B3HW))


def run_reference(network: nn.Module, graph: fx.Graph, image_B3HW: torch.Tensor,
                  layout: VisibleLayout) -> list[torch.Tensor]:
    """Compute every position and multiply by the mask after every operation: the plain definition.

    Returns:
        list of dense maps ``x_BChw`` with zeros at masked positions, one for each output of the network.
    """
    masked = image_B3HW * expand_mask(layout.active_B1ff, *image_B3HW.shape[-2:])
    return _Reference(network, graph, layout).run(masked)
