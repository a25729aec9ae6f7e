"""Tracing a dense network into a graph whose operations the sparse engines know."""

import operator

import torch
import torch.nn.functional as F
from torch import fx, nn

from pretrain.errors import InputError
from pretrain.sparse.operations import MODULES

# Functions and tensor methods that act on each position alone and map zero to zero, so that they mean
# the same on packed patches and on a masked dense map.
POSITIONWISE = {
    operator.add,
    operator.iadd,
    operator.sub,
    operator.mul,
    operator.imul,
    torch.add,
    torch.mul,
    torch.cat,
    F.relu,
    F.relu6,
    F.gelu,
    F.silu,
    F.hardswish,
    F.leaky_relu,
    torch.relu,
    torch.tanh,
    F.dropout,
    'add',
    'add_',
    'mul',
    'mul_',
    'relu',
    'relu_',
    'contiguous',
    'clone',
}
_ADDITIONS = {operator.add, operator.iadd, operator.sub, torch.add, 'add', 'add_'}
_SPLITS = {torch.split, torch.chunk, 'split', 'chunk'}
# To channels last and back: the only reorderings of axes that keep a packed map's meaning.
_PERMUTATIONS = {(0, 2, 3, 1), (0, 3, 1, 2)}


class _Tracer(fx.Tracer):
    """Stops at every module whose sparse counterpart is known, and at torch's own modules."""

    def is_leaf_module(self, module, qualified_name):
        return type(module) in MODULES or super().is_leaf_module(module, qualified_name)

    def call_module(self, m, forward, args, kwargs):
        # A slice of a Sequential, made on the way, is no part of the network: its modules are.
        if type(m) is nn.Sequential and m not in self.root.modules():
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)


def trace(network: nn.Module) -> fx.Graph:
    """Trace ``network`` and check that every operation on features has a sparse counterpart.

    Args:
        network: module from an image ``(B, 3, H, W)`` to a list of feature maps.

    Raises:
        InputError: naming the module path and type, or the function, that is not known, and how to
            register it.
    """
    graph = _draw_graph(network)
    modules = dict(network.named_modules())
    features: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == 'placeholder' or any(source in features for source in node.all_input_nodes):
            features.add(node)
            _check(node, modules, features)
    return graph


def _draw_graph(network):
    try:
        graph = _Tracer().trace(network)
    except (fx.proxy.TraceError, TypeError, NameError, RuntimeError) as error:
        raise InputError(
            f'{type(network).__name__} cannot be traced: its forward pass branches on data '
            f'({str(error).splitlines()[0]}); register that part with '
            'pretrain.sparse.operations.register'
        ) from error
    _refuse_statements(graph, network)
    erase_unused(graph)
    return graph


def _refuse_statements(graph, network):
    """Refuse what changes a map in place and is not assigned: nothing in the graph would depend on it."""
    modules = dict(network.named_modules())
    for node in graph.nodes:
        if node.users or node.op not in ('call_function', 'call_method', 'call_module'):
            continue
        name = getattr(node.target, '__name__', str(node.target))
        module = modules.get(node.target) if node.op == 'call_module' else None
        if node.kwargs.get('inplace') or getattr(module, 'inplace', False) or name.endswith('_') and name[:1] != '_':
            raise InputError(
                f'{name!r}{_home(node)} changes a feature map in place as a statement, and its result would be lost: '
                f'assign it, as in x = {name}(x)'
            )


def erase_unused(graph: fx.Graph) -> None:
    """Erase the nodes whose value nothing uses, also those that torch takes for ones with another effect."""
    for node in reversed(graph.nodes):
        if not node.users and node.op not in ('placeholder', 'output'):
            graph.erase_node(node)


def _check(node, modules, features):
    if node.op == 'call_module':
        module = modules[node.target]
        if type(module) not in MODULES:
            kind = f'{type(module).__module__}.{type(module).__qualname__}'
            raise InputError(
                f'no sparse counterpart of module {node.target!r} ({kind}): register one with '
                'pretrain.sparse.operations.register'
            )
    elif node.op in ('call_function', 'call_method'):
        _check_operation(node, features)


def _check_operation(node, features):
    name = getattr(node.target, '__name__', node.target)
    if node.target in ('permute', torch.permute):
        known = tuple(node.args[1] if len(node.args) == 2 else node.args[1:]) in _PERMUTATIONS
    elif node.target is torch.cat:
        known = _axis(node, 1) == 1
    elif node.target in _SPLITS:
        known = _axis(node, 2) == 1
    elif node.target is operator.getitem:
        known = isinstance(node.args[1], int) and node.args[0].target in _SPLITS
    else:
        known = node.target in POSITIONWISE
    if not known:
        raise InputError(
            f'no sparse counterpart of the operation {name!r} at {node.name!r}{_home(node)}: move it '
            'into a module of its own and register that with pretrain.sparse.operations.register'
        )
    if node.target in _ADDITIONS and not all(source in features or source == 0 for source in node.args[:2]):
        raise InputError(
            f'{name!r} at {node.name!r}{_home(node)} adds something else than a feature map, which would '
            'make masked positions non-zero: move it into a registered module'
        )


def _axis(node, place):
    return node.args[place] if len(node.args) > place else node.kwargs.get('dim', 0)


def _home(node):
    """Path and type of the module whose forward pass holds the operation."""
    stack = list((node.meta.get('nn_module_stack') or {}).values())
    if not stack:
        return ''
    path, kind = stack[-1]
    return f' in module {path!r} ({kind.__module__}.{kind.__qualname__})' if path else ''


def drop_unused(network: nn.Module) -> None:
    """Replace the children of ``network`` that own parameters but take no part in its forward pass by identities.

    A classifier's norm behind the last map, say, would never receive a gradient. A network that cannot be traced
    is left as it is.
    """
    try:
        graph = _draw_graph(network)
    except InputError:
        return
    used = {node.target for node in graph.nodes if node.op in ('call_module', 'get_attr')}
    unused: list[tuple[nn.Module, str]] = []

    def visit(module: nn.Module, prefix):
        for name, child in module.named_children():
            path = f'{prefix}{name}'
            if any(target.startswith(f'{path}.') for target in used):
                visit(child, f'{path}.')
            elif path not in used and next(child.parameters(), None) is not None:
                unused.append((module, name))

    visit(network, '')
    for module, name in unused:
        setattr(module, name, nn.Identity())
