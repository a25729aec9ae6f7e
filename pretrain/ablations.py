"""The ablations of the paper by name, and what each one changes. Knows no torch: the command line reads it."""

from dataclasses import dataclass

from pretrain.errors import InputError


@dataclass(frozen=True)
class Ablation:
    """What one row of the ablation table changes against SparK itself.

    Attributes:
        summary: one line for a person.
        sparse_encoder: the encoder computes visible patches only.
        mask_tokens: masked positions of the densified maps hold a learnt token.
        hierarchy: all four scales reach the decoder, not the deepest alone.
        position_embedding: a fixed 2-D sin-cos embedding is added to every densified map.
        loss_on_all: the loss averages over all patches, not the masked ones alone.
        schedule_scale: factor on the number of pretraining epochs.
        pretrains: False for the baseline that skips pretraining.
    """

    summary: str
    sparse_encoder: bool = True
    mask_tokens: bool = True
    hierarchy: bool = True
    position_embedding: bool = False
    loss_on_all: bool = False
    schedule_scale: float = 1.0
    pretrains: bool = True


ABLATIONS = {
    'spark': Ablation('SparK as published'),
    'no_sparse': Ablation('dense encoder on the masked image, mask tokens kept', sparse_encoder=False),
    'black_mosaic': Ablation(
        'masked pixels blacked out, dense encoder, no mask tokens (zero-outing)',
        sparse_encoder=False,
        mask_tokens=False,
    ),
    'no_hierarchy': Ablation('only the deepest map reaches the decoder', hierarchy=False),
    'ape': Ablation('absolute position embedding on every densified map', position_embedding=True),
    'loss_on_all': Ablation('loss over visible and masked patches alike', loss_on_all=True),
    'half_schedule': Ablation('half the pretraining epochs', schedule_scale=0.5),
    'scratch': Ablation('no pretraining', pretrains=False),
}


def get_ablation(name: str) -> Ablation:
    """Return the :class:`Ablation` called ``name``; raise :class:`InputError` for any other name."""
    if name not in ABLATIONS:
        raise InputError(f'unknown ablation {name!r}: choose one of {", ".join(ABLATIONS)}')
    return ABLATIONS[name]
