"""The two interpreters of a traced network: both take the mask layout as an argument."""

from torch import fx

from pretrain.masking import expand_mask
from pretrain.sparse.operations import MODULES


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
    counterpart = 'packed'


class _Reference(_Interpreter):
    counterpart = 'reference'


def run_packed(network, graph, image_B3HW, layout):
    """Compute the visible patches only.

    Returns:
        list of packed maps ``x_NCbb``, one for each output of the network.
    """
    return _Packed(network, graph, layout).run(layout.pack(image_B3HW))


def run_reference(network, graph, image_B3HW, layout):
    """Compute every position and multiply by the mask after every operation: the plain definition.

    Returns:
        list of dense maps ``x_BChw`` with zeros at masked positions, one for each output of the network.
    """
    masked = image_B3HW * expand_mask(layout.active_B1ff, *image_B3HW.shape[-2:])
    return _Reference(network, graph, layout).run(masked)
