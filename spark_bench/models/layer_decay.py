"""Learning rates that fall from layer to layer, as fine-tuning recipes of pretrained backbones have them."""

import functools
from collections import defaultdict
from typing import Any

from mmengine.dist import master_only
from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from spark_bench.errors import InputError

_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
_KEYS = {'decay_rate', 'no_decay'}


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class SparKLayerDecay(DefaultOptimWrapperConstructor):
    """One group of parameters for each layer and weight decay.

    A parameter's layer is what the model's own ``get_layer_depth(name)`` says, or else its backbone's
    ``get_layer_depth(name, prefix='backbone.')``; everything behind the backbone is the last layer. Its learning rate
    is ``lr * decay_rate ** (layers - 1 - layer)``. The table of groups is logged.

    ``paramwise_cfg``:
        decay_rate: in (0, 1]; 1 gives all layers the same learning rate.
        no_decay: which parameters go without weight decay: ``'1d'`` (those of one dimension or less: biases, norms,
            layer scale), ``'norm'`` (those of norm layers), or any other text, meaning every parameter whose name
            contains it. Default ``('1d',)``.

    Raises:
        InputError: for an unknown key, a rate out of range, or a backbone without ``get_layer_depth``.
    """

    def _validate_cfg(self):
        unknown = sorted(set(self.paramwise_cfg) - _KEYS)
        if unknown:
            raise InputError(
                f'optim_wrapper.paramwise_cfg has an unknown key {unknown[0]!r}: SparKLayerDecay takes '
                f'{" and ".join(sorted(_KEYS))}'
            )
        rate = self.paramwise_cfg.get('decay_rate')
        if not isinstance(rate, (int, float)) or not 0 < rate <= 1:
            raise InputError(f'optim_wrapper.paramwise_cfg.decay_rate is {rate!r}: give a number above 0, up to 1')
        rules = self.paramwise_cfg.get('no_decay', ())
        if not isinstance(rules, (list, tuple)) or not all(isinstance(rule, str) and rule for rule in rules):
            raise InputError(
                f"optim_wrapper.paramwise_cfg.no_decay is {rules!r}: give a list of texts, such as ['1d', 'pos_embed']"
            )
        for key, value in (('lr', self.base_lr), ('weight_decay', self.base_wd)):
            if value is None:
                raise InputError(
                    f'optim_wrapper.optimizer has no {key!r}: SparKLayerDecay derives that of each layer from it'
                )

    def add_params(self, params: list[dict[str, Any]], module: nn.Module, **kwargs: Any) -> None:
        """Append the groups of ``module``'s trainable parameters to ``params``, from the stem to the head."""
        layer_of = _layer_rule(module)
        rate = self.paramwise_cfg['decay_rate']
        exempt = self._exempt(module)
        groups = defaultdict(list)
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                layer, layers = layer_of(name)
                groups[layer, layers, name in exempt].append((name, parameter))
        for (layer, layers, without), members in sorted(groups.items(), key=lambda item: item[0]):
            scale = rate ** (layers - 1 - layer)
            params.append(
                {
                    'params': [parameter for _, parameter in members],
                    'param_names': [name for name, _ in members],
                    'layer': layer,
                    'lr_scale': scale,
                    'lr': self.base_lr * scale,
                    'weight_decay': 0.0 if without else self.base_wd,
                }
            )
        _log_table(params)

    def _exempt(self, module):
        rules = self.paramwise_cfg.get('no_decay', ('1d',))
        exempt = set()
        if 'norm' in rules:
            exempt = {
                f'{owner}.{name}'.lstrip('.')
                for owner, part in module.named_modules()
                if isinstance(part, _NORMS)
                for name, _ in part.named_parameters(recurse=False)
            }
        texts = [rule for rule in rules if rule not in ('1d', 'norm')]
        exempt.update(
            name
            for name, parameter in module.named_parameters()
            if '1d' in rules and parameter.dim() <= 1 or any(text in name for text in texts)
        )
        return exempt


def _layer_rule(model):
    """Function from a parameter's name to ``(layer, layers)``."""
    if hasattr(model, 'get_layer_depth'):
        return model.get_layer_depth
    backbone = getattr(model, 'backbone', None)
    if not hasattr(backbone, 'get_layer_depth'):
        raise InputError(
            f'{type(backbone or model).__name__} does not tell the layer of its parameters '
            '(get_layer_depth): SparKLayerDecay needs one of the SparK backbones'
        )
    return functools.partial(backbone.get_layer_depth, prefix='backbone.')


@master_only
def _log_table(groups):
    lines = ['layer  lr × base  learning rate  weight decay  tensors  parameters']
    for group in groups:
        count = sum(parameter.numel() for parameter in group['params'])
        lines.append(
            f'{group["layer"]:5}  {group["lr_scale"]:9.5f}  {group["lr"]:13.4g}  '
            f'{group["weight_decay"]:12.4g}  {len(group["params"]):7}  {count:10,}'
        )
    print_log('layer decay\n' + '\n'.join(lines), logger='current')
