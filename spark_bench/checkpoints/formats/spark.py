"""SparK models with decoder: as the authors, mmpretrain and this project name them."""

from spark_bench.checkpoints.formats.base import Wrapping

_BLOCK = {'conv1': 'conv.0', 'norm1': 'conv.1', 'conv2': 'conv.3', 'norm2': 'conv.4'}


class OwnSparK(Wrapping):
    """``pretrain.SparK``: the canonical names."""

    format = 'spark_bench'
    network_prefix = 'encoder.pyramid.network.'
    anchor = 'decoder.proj.weight'
    rules = ('decoder.{p}', 'decoder.{p}'), ('densify.{i}.{p}', 'densify.{i}.{p}')


class AuthorsSparK(Wrapping):
    """``*_withdecoder_1kpretrained_spark_style.pth`` of keyu-tian/SparK."""

    format = 'spark'
    network_prefix = 'sparse_encoder.sp_cnn.'
    anchor = 'dense_decoder.proj.weight'
    rules = (
        ('dense_decoder.{p}', 'decoder.{p}'),
        ('densify_norms.{i}.{p}', 'densify.{i}.norm.{p}'),
        ('densify_projs.{i}.{p}', 'densify.{i}.proj.{p}'),
        ('mask_tokens.{i}', 'densify.{i}.mask_token'),
    )
    dead = {r'imn_m|imn_s|norm_black': "a buffer that the authors' code never reads"}


class MMSparK(Wrapping):
    """mmpretrain's SparK. Its decoder is the same network, 512 wide in its own recipes."""

    format = 'mmpretrain SparK'
    network_prefix = 'backbone.'
    anchor = 'neck.decoder.0.upsample.weight'
    rules = (
        ('neck.decoder.{i}.upsample.{p}', 'decoder.dec.{i}.up_sample.{p}'),
        *(
            (f'neck.decoder.{{i}}.conv_blocks.0.{foreign}.{{p}}', f'decoder.dec.{{i}}.{own}.{{p}}')
            for foreign, own in _BLOCK.items()
        ),
        ('neck.proj.{p}', 'decoder.proj.{p}'),
        ('enc_dec_norms.{i}.{p}', 'densify.{i}.norm.{p}'),
        ('enc_dec_projectors.{i}.{p}', 'densify.{i}.proj.{p}'),
        ('mask_tokens.{i}', 'densify.{i}.mask_token'),
    )
