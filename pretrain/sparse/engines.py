"""The two interpreters of a traced network: both take the mask layout as an argument."""

from contextlib import nullcontext
from dataclasses import replace

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
    """Runs a traced graph, each module through its sparse counterpart: the ``packed`` or the ``reference`` one."""

    def __init__(self, network, graph, layout, counterpart):
        super().__init__(network, graph=graph)
        self.layout, self.counterpart = layout, counterpart

    def call_module(self, target, args, kwargs):
        module = self.fetch_attr(target)
        operation = MODULES.get(type(module))
        if operation is None:
            # A module that touches no feature map (say, on a parameter): trace() has checked the others.
            return module(*args, **kwargs)
        return getattr(operation, self.counterpart)(module, *args, self.layout, **kwargs)


class _Packed(_Interpreter):
    """Runs the packed counterparts, and lets convolutions keep recipes of their inputs where there are any."""

    def __init__(self, network, graph, layout):
        super().__init__(network, graph, layout, 'packed')
        self.recipes = {}  # from node to NormedActivation

    def run_node(self, node):
        source = node.args[0] if len(node.args) == 1 and not node.kwargs else None
        if node.op != 'call_module' or not isinstance(source, fx.Node) or not torch.is_grad_enabled():
            return super().run_node(node)
        module, x_NCbb, recipe, kept = self.fetch_attr(node.target), self.env[source], self.recipes.get(source), None
        if can_be_made_again(module):
            self.recipes[node] = NormedActivation(module, x_NCbb.detach())
        elif recipe is not None and type(module) is nn.Identity:
            self.recipes[node] = recipe
        elif recipe is not None and type(module) is nn.ReLU and not recipe.rectified:
            kept = self.recipes[node] = replace(recipe, rectified=True)
        elif getattr(MODULES.get(type(module)), 'packed', None) in _THRIFTY:
            kept = recipe
        with nullcontext() if kept is None else keeping(kept, x_NCbb):
            return super().run_node(node)


def run_packed(
    network: nn.Module, graph: fx.Graph, image_B3HW: torch.Tensor, layout: VisibleLayout
) -> list[torch.Tensor]:
    """Compute the visible patches only.

    Returns:
        list of packed maps ``x_NCbb``, one for each output of the network.
    """
    return _Packed(network, graph, layout).run(layout.pack(image_B3HW))


def run_reference(
    network: nn.Module, graph: fx.Graph, image_B3HW: torch.Tensor, layout: VisibleLayout
) -> list[torch.Tensor]:
    """Compute every position and multiply by the mask after every operation: the plain definition.

    Returns:
        list of dense maps ``x_BChw`` with zeros at masked positions, one for each output of the network.
    """
    masked = image_B3HW * expand_mask(layout.active_B1ff, *image_B3HW.shape[-2:])
    return _Interpreter(network, graph, layout, 'reference').run(masked)
