"""The methods of pretraining by name. Knows no torch: the command line reads it."""

from dataclasses import dataclass

from pretrain.ablations import ABLATIONS
from spark_bench.errors import InputError

_RECIPES = 'pretrain/configs'


@dataclass(frozen=True)
class Method:
    """One way to pretrain.

    Attributes:
        summary: one line for a person.
        recipe: small one, taken where none is named.
        schedule_scale: factor on the epochs of a recipe.
    """

    summary: str
    recipe: str
    schedule_scale: float = 1.0


METHODS = {
    **{
        name: Method(ablation.summary, f'{_RECIPES}/demo_pretrain.py', ablation.schedule_scale)
        for name, ablation in ABLATIONS.items()
        if ablation.pretrains
    },
    'mae': Method(
        'a masked autoencoder: a quarter of the patches through a ViT, a small decoder for the rest',
        f'{_RECIPES}/small_mae.py',
    ),
    'simmim': Method(
        'hidden pixels, told from the last map of a Swin by one linear layer', f'{_RECIPES}/small_simmim.py'
    ),
    'moco_v2': Method(
        'momentum contrast: two views of an image against a queue of others', f'{_RECIPES}/small_moco_v2.py'
    ),
    'byol': Method(
        "one view's projection predicts the other's, of a slow copy of the network", f'{_RECIPES}/small_byol.py'
    ),
    'supervised': Method(
        'trained with labels in the ordinary way, as its source describes', f'{_RECIPES}/small_supervised.py'
    ),
}


def get_method(name: str) -> Method:
    """The :class:`Method` called ``name``; raises InputError for any other name."""
    if name not in METHODS:
        raise InputError(f'unknown method of pretraining {name!r}: choose one of {", ".join(METHODS)}')
    return METHODS[name]
