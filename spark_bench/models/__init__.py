"""Backbones and the pretraining model in OpenMMLab's registry."""
