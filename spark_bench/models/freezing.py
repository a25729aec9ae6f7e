"""Backbones that training leaves as they are."""

from torch import nn


class Freezable(nn.Module):
    """Base, ahead of a network's own, of a backbone that can be frozen as a whole.

    Frozen, its parameters need no gradient, and it stays in evaluation mode: statistics of batch norm stay, and
    stochastic depth drops nothing.
    """

    frozen = False

    def freeze(self, frozen: bool = True) -> None:
        """Freeze the network for good; with False, leave it as it is."""
        if frozen:
            self.frozen = True
            self.requires_grad_(False)
            self.train()

    def train(self, mode: bool = True) -> 'Freezable':
        """Switch mode; a frozen network stays in evaluation mode. Returns the module, which mmdet's networks do not."""
        super().train(mode and not self.frozen)
        return self
