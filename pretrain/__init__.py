"""SparK pretraining of convolutional networks (Tian et al., ICLR 2023, arXiv 2301.03580).

Needs torch and timm, nothing of OpenMMLab. Importing this package is cheap: torch is loaded when one
of the names below is first used.
"""

from importlib import import_module

_HOMES = {
    'ABLATIONS': 'pretrain.ablations',
    'InputError': 'pretrain.errors',
    'SparK': 'pretrain.spark',
    'SparseEncoder': 'pretrain.encoder',
    'VisibleLayout': 'pretrain.masking',
    'build_spark': 'pretrain.spark',
    'random_mask': 'pretrain.masking',
}

__all__ = list(_HOMES)


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(_HOMES[name]), name)
