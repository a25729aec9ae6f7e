"""The sparse engines: a traced network, rewritten once into a program that takes the mask layout as an argument.

A program calls the sparse counterpart of each module in the order of the trace. It decides nothing by values, so
``torch.compile`` takes it whole; and it fetches the modules from the network that it is called with, so these may have
been replaced by others of their kind.
"""

import operator
from contextlib import nullcontext
from typing import Any

import torch
from timm import layers
from torch import fx, nn

from pretrain.masking import VisibleLayout
from pretrain.sparse.convolution import packed_convolution
from pretrain.sparse.operations import MODULES
from pretrain.sparse.pooling import packed_max_pool
from pretrain.sparse.recompute import NormedActivation, keeping, recipe_of_output, recipe_of_sum

# Counterparts that keep nothing of their input but the input itself.
_THRIFTY = (packed_convolution, packed_max_pool)


def rewrite(graph: fx.Graph, engine: str) -> fx.GraphModule:
    """Rewrite the graph of a network for an engine.

    Args:
        graph: of :func:`~pretrain.sparse.trace.trace`.
        engine: ``packed`` or ``reference``.

    Returns:
        a program, a module without weights of its own. ``program(network, layout, masked)`` returns what the network
        returns. ``packed`` computes visible patches only; it takes and returns packed maps ``x_NCbb``. ``reference``
        computes every position and multiplies by the mask after every operation: the plain definition. Its maps
        ``x_BChw`` are zero at masked positions, as the images that it takes have to be.
    """
    program = fx.Graph()
    network, layout = program.placeholder('network'), program.placeholder('layout')
    values: dict[fx.Node, fx.Node] = {}
    recipes: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        if node.op == 'get_attr':
            values[node] = program.call_function(_fetch, (network, node.target))
        elif node.op == 'call_module':
            module = program.call_function(_fetch, (network, node.target))
            args, kwargs = fx.map_arg((node.args, node.kwargs), values.__getitem__)
            if engine == 'packed' and len(args) == 1 and not kwargs:
                recipe = recipes.get(node.args[0])
                recipes[node] = program.call_function(recipe_of_output, (module, args[0], layout, recipe))
                kept = (recipe, recipes[node])
                values[node] = program.call_function(_run_keeping, (module, args[0], layout, *kept))
            else:
                values[node] = program.call_function(_run, (engine, module, layout, args, kwargs))
        else:
            terms = all(isinstance(term, fx.Node) for term in node.args)
            if engine == 'packed' and node.target in (operator.add, operator.iadd) and terms:
                maps = [values[term] for term in node.args]
                recipes[node] = program.call_function(recipe_of_sum, (*maps, *map(recipes.get, node.args)))
            values[node] = program.node_copy(node, values.__getitem__)
    program.eliminate_dead_code()
    return fx.GraphModule(nn.Module(), program)


def _fetch(network, path):
    for name in path.split('.'):
        network = getattr(network, name)
    return network


def _run(engine: str, module: nn.Module, layout: VisibleLayout, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    operation = MODULES.get(type(module))
    if operation is None:
        # A module that touches no feature map (say, on a parameter): trace() has checked the others.
        return module(*args, **kwargs)
    return getattr(operation, engine)(module, *args, layout, **kwargs)


def _run_keeping(
    module: nn.Module,
    x_NCbb: torch.Tensor,
    layout: VisibleLayout,
    recipe: NormedActivation | None,
    recipe_of_result: NormedActivation | None,
) -> torch.Tensor:
    """Run the packed counterpart, and let autograd keep the recipe of a map in place of the map where there is one."""
    operation = MODULES.get(type(module))
    if recipe_of_result is not None and recipe_of_result.scale is not None and type(module) is layers.DropPath:
        return x_NCbb * recipe_of_result.scale  # drawn already
    if type(module) is nn.ReLU:
        kept = recipe_of_result  # autograd keeps what a ReLU gives
    else:
        kept = recipe if operation is not None and operation.packed in _THRIFTY else None
    with nullcontext() if kept is None else keeping(kept, x_NCbb):
        return _run('packed', module, layout, (x_NCbb,), {})
