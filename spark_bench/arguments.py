"""The words of the command line. Nothing heavy is loaded here, so that --help answers at once."""

import argparse

from pretrain.ablations import ABLATIONS
from spark_bench.parsing import EXIT_USAGE, Flag, Parser, count, positive, ratio, seed, setting, share
from spark_bench.places import RESULTS

__all__ = ['EXIT_USAGE', 'PROTOCOLS', 'build_parser', 'misplaced']

_PROBE = ('input_size', 'label_fraction', 'label_seed', 'batch_size', 'amp', 'device', 'download', 'key_prefix')
# What `evaluate` can measure, and the options that are for some of it only.
PROTOCOLS = {
    'detection': ('config', 'cfg_options', 'backend', 'bootstrap'),
    'finetune': ('config', 'cfg_options'),
    'linear': _PROBE,
    'knn': (*_PROBE, 'neighbours'),
}
_NOT_GIVEN = {'cfg_options': [], 'backend': 'fast', 'bootstrap': 0, 'download': False}


def build_parser():
    """The parser of ``spark-bench`` with all its commands."""
    parser = Parser(prog='spark-bench', description='Measure how well convnets pretrained with SparK transfer to '
                                                    'detection, segmentation and classification.')
    parser.add_argument('--debug', action='store_true', help='show the traceback of an error')
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    _add_demo(commands)
    _add_run_suite(commands)
    _add_pretrain(commands)
    _add_finetune(commands)
    _add_detect(commands)
    _add_evaluate(commands)
    _add_table(commands)
    _add_compare(commands)
    _add_report(commands)
    _add_visualize(commands)
    _add_data(commands)
    _add_profile(commands)
    _add_inspect(commands)
    _add_convert(commands)
    commands.add_parser('doctor', help='check what is installed and whether it works')
    for command in commands.choices.values():
        # SUPPRESS: a --debug before the command is kept.
        command.add_argument('--debug', action='store_true', default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser


def misplaced(args):
    """The first option given to `evaluate` that its protocol has no use for, as a person writes it; None without."""
    special = {name for names in PROTOCOLS.values() for name in names}.difference(PROTOCOLS[args.protocol])
    given = sorted(name for name in special if getattr(args, name) != _NOT_GIVEN.get(name))
    return None if not given else 'CONFIG' if given[0] == 'config' else f'--{given[0].replace("_", "-")}'


def _add_demo(commands):
    parser = commands.add_parser('demo', help='the whole road on the embedded data set: ablation table and report')
    parser.add_argument('--quick', action='store_true', help='a few steps of everything, in about a minute')
    parser.add_argument('--arch', default='test_resnet', metavar='NAME',
                        help='timm convnet: test_resnet (default), test_convnext, or a larger one')
    parser.add_argument('--jobs', type=positive, metavar='N', help='runs at a time (default: one a CPU core)')
    _add_places(parser, 'work_dirs/<suite>')
    _add_cache(parser)


def _add_run_suite(commands):
    parser = commands.add_parser('run', help='run what a table needs: the missing cells of a suite, then the table')
    parser.add_argument('suite', metavar='SUITE', help='demo, demo_quick, mini, ablation, scaling, resnet50, '
                                                       'transformers, or the path of a suite of your own')
    parser.add_argument('--data-root', nargs='+', default=[], metavar='NAME=DIR',
                        help='places of the data sets that the suite names, such as imagenet=/data/imagenet')
    parser.add_argument('--arch', metavar='NAME', help="in place of the suite's architectures")
    parser.add_argument('--only', nargs='+', default=[], metavar='PATTERN',
                        help='cells by name, such as detection/* or */spark/*; what they start from comes along')
    parser.add_argument('--limit', type=positive, metavar='N', help='run at most N of the missing cells')
    parser.add_argument('--jobs', type=positive, metavar='N', help='cells at a time (on Slurm: of an array)')
    parser.add_argument('--gpus', type=positive, metavar='N',
                        help='processes that train together in each cell, one a GPU (default: 1 here, 8 on a cluster; '
                             'fewer where they do not divide the batch of a recipe)')
    parser.add_argument('--published', action='store_true',
                        help='start from published pretrained weights where there are any, instead of pretraining')
    parser.add_argument('--download', action='store_true', help='fetch published files that are not there')
    parser.add_argument('--dry-run', action='store_true', help='print the plan with estimated GPU-hours and disk')
    parser.add_argument('--status', action='store_true', help='print where each cell stands; on a terminal, live')
    cluster = parser.add_argument_group('on a cluster (through submitit)')
    cluster.add_argument('--cluster', choices=('slurm', 'local'),
                         help='submit the cells to Slurm; local runs the same jobs on this machine, as a rehearsal')
    cluster.add_argument('--gpus-per-node', type=positive, default=8, metavar='N', help='default: 8')
    cluster.add_argument('--cpus-per-gpu', type=positive, default=8, metavar='N', help='default: 8')
    cluster.add_argument('--partition', metavar='NAME')
    cluster.add_argument('--hours', type=positive, default=24, metavar='N',
                         help='of a job; one that is stopped or preempted goes on in the next (default: 24)')
    cluster.add_argument('--slurm', nargs='+', default=[], type=setting, metavar='KEY=VALUE',
                         help='further options of sbatch, such as account=vision')
    _add_places(parser, 'work_dirs/<suite>')
    _add_cache(parser)


def _add_pretrain(commands):
    parser = commands.add_parser('pretrain', help='pretrain a convnet on a folder of pictures')
    _add_run(parser, 'pretrain/configs/demo_pretrain.py',
             'folder (any depth, ImageNet, COCO, tar shards), list file .txt, .tar or .zip of pictures')
    parser.add_argument('--ablation', default='spark', metavar='NAME',
                        help=f'{", ".join(name for name, value in ABLATIONS.items() if value.pretrains)}')
    parser.add_argument('--epochs', type=positive, metavar='N', help='schedules are stretched to them')
    _add_speed(parser)
    parser.add_argument('--bad-pictures', choices=('fail', 'skip'), help='that cannot be read (default: fail)')
    parser.add_argument('--picture-interval', type=count, metavar='N',
                        help='epochs between pictures of reconstructions; 0: none')


def _add_finetune(commands):
    parser = commands.add_parser('finetune', help='fine-tune a classifier and measure top-1')
    _add_run(parser, 'pretrain/configs/demo_finetune.py',
             'train/<class>/ and val/<class>/ in a folder or .zip, or a folder of tar shards')
    _add_weights(parser)
    parser.add_argument('--epochs', type=positive, metavar='N', help='schedules are stretched to them')
    parser.add_argument('--label-fraction', type=share, metavar='F',
                        help='learn from this share of each class, such as 0.1 (default: all)')
    parser.add_argument('--label-seed', type=seed, default=0, metavar='N', help='of the draw of that share')
    _add_speed(parser)


def _add_detect(commands):
    parser = commands.add_parser('detect', help='train Mask R-CNN and measure box and mask AP')
    _add_run(parser, 'mmdet_configs/demo/mask-rcnn_demo.py', 'folder in COCO layout')
    _add_weights(parser)
    _add_speed(parser)
    _add_metric(parser)


def _add_evaluate(commands):
    parser = commands.add_parser('evaluate', help='measure a trained detector, or the features of a network')
    parser.add_argument('--protocol', choices=tuple(PROTOCOLS), default='detection',
                        help='detection: box and mask AP of a detector (default); finetune: top-1 of a fine-tuned '
                             'classifier; linear: of a linear classifier on frozen features; knn: of nearest '
                             'neighbours')
    _add_run(parser, 'mmdet_configs/demo/mask-rcnn_demo.py',
             'folder in COCO layout; for the other protocols, pictures in classes as for finetune',
             'work_dirs/evaluate/<config>/<weights>-<digest>; for linear and knn '
             'work_dirs/<suite>/probes/<arch>/<method>/<seed>')
    parser.add_argument('--weights', metavar='FILE',
                        help='of the whole detector: detector.safetensors of a work directory, or a .pth of mmdet; '
                             'classifier.safetensors for finetune; for linear and knn, of a network in any format, '
                             'or spark, supervised … for the published file of --arch (default: scratch, a random one)')
    _add_launcher(parser)
    parser.add_argument('--workers', type=count, metavar='N', help='processes that load pictures, a process')
    _add_metric(parser)
    _add_probe(parser)


def _add_probe(parser):
    """Options of linear and knn; None where they are not given."""
    parser.add_argument('--input-size', type=positive, metavar='P', help='side of the pictures (default: 224)')
    parser.add_argument('--label-fraction', type=share, metavar='F',
                        help='learn from this share of each class, such as 0.1 (default: all)')
    parser.add_argument('--label-seed', type=seed, metavar='N', help='of the draw of that share (default: 0)')
    parser.add_argument('--neighbours', type=positive, metavar='K', help='knn only (default: 20)')
    parser.add_argument('--batch-size', type=positive, metavar='N', help='pictures at a time (default: 64)')
    parser.add_argument('--amp', action='store_true', default=None, help='compute features in bfloat16 autocast')
    parser.add_argument('--device', metavar='NAME', help='default: cuda where there is a GPU, else cpu')
    _add_key_prefix(parser)
    _add_download(parser)


def _add_table(commands):
    parser = commands.add_parser('table', help='print the table of a suite, and write it as Markdown and CSV')
    _add_suite(parser)
    parser.add_argument('--format', choices=('terminal', 'markdown', 'csv', 'latex', 'html'),
                        help='only this one, to standard output or the file of --output')
    parser.add_argument('--output', metavar='FILE', help='its end names the format: .txt, .md, .csv, .tex, .html')


def _add_compare(commands):
    parser = commands.add_parser('compare', help='two sets of records side by side: what differs beyond noise; merging')
    for name in 'ab':
        parser.add_argument(name, metavar=name.upper(), help='a results folder, a folder inside one, or a record')
    parser.add_argument('--metric', nargs='+', metavar='NAME', help='default: top1, box_ap, mask_ap, pretraining loss')
    parser.add_argument('--merge', metavar='DIR',
                        help='write the records of both here, unless any are in conflict; those are named')
    parser.add_argument('--format', choices=('terminal', 'markdown', 'csv'), help='default: terminal')
    parser.add_argument('--output', metavar='FILE', help='in place of standard output: .txt, .md or .csv')


def _add_report(commands):
    parser = commands.add_parser('report', help='write the report of a suite: one self-contained HTML file')
    _add_suite(parser)
    parser.add_argument('--output', metavar='FILE', help='default: <results>/report.html, or report-<suite>.html')
    parser.add_argument('--figures', action='store_true',
                        help='also write each figure as SVG and PNG to <results>/figures/<suite>/')


def _add_visualize(commands):
    parser = commands.add_parser('visualize', help='pictures: reconstructions, and how far a mask survives')
    kinds = parser.add_subparsers(dest='kind', required=True, metavar='KIND')
    reconstruct = kinds.add_parser('reconstruct', help='input, masked, reconstruction, pasted; or a grid over methods')
    reconstruct.add_argument('--weights', nargs='+', required=True, metavar='FILE',
                             help='whole pretraining models (spark.safetensors); several make a grid')
    reconstruct.add_argument('--labels', nargs='+', metavar='NAME', help='one a file (default: the method it names)')
    reconstruct.add_argument('--data-root', required=True, metavar='PATH', help='a picture, or a folder of pictures')
    reconstruct.add_argument('--count', type=positive, default=6, metavar='N',
                             help='pictures, evenly spaced over the folder (default: 6)')
    reconstruct.add_argument('--arch', metavar='NAME', help='timm convnet of files that do not name theirs')
    reconstruct.add_argument('--statistics', choices=('original', 'visible'), default='original',
                             help='where mean and contrast of masked patches come from (default: original)')
    reconstruct.add_argument('--device', metavar='NAME', help='default: cuda where there is a GPU, else cpu')
    reconstruct.add_argument('--tiles', action='store_true', help='also write each picture of the figure alone')
    pattern = kinds.add_parser('mask-pattern', help='the mask after 1, 2, 4, … convolutions, dense and sparse')
    pattern.add_argument('--arch', required=True, metavar='NAME', help='timm convnet')
    pattern.add_argument('--layers', nargs='+', type=int, metavar='N',
                         help='numbers of convolutions, 0 for the input (default: 0 1 2 4 8 … and the last)')
    for kind, side, hidden in ((reconstruct, None, None), (pattern, 224, 0.6)):
        kind.add_argument('--input-size', type=positive, default=side, metavar='P',
                          help=f"side of the pictures in pixels (default: {side or 'as trained'})")
        kind.add_argument('--mask-ratio', type=ratio, default=hidden, metavar='R',
                          help=f"fraction of patches hidden (default: {hidden or 'as trained'})")
        kind.add_argument('--seed', type=seed, default=0, metavar='N', help='of the masks')
        kind.add_argument('--output', required=True, metavar='PATH', help='FILE.png, or a folder')


def _add_data(commands):
    parser = commands.add_parser('data', help='prepare data sets')
    kinds = parser.add_subparsers(dest='kind', required=True, metavar='KIND')
    embedded = kinds.add_parser('embedded', help='generate the embedded data set, without any download')
    embedded.add_argument('--size', choices=('full', 'quick'), default='full')
    embedded.add_argument('--seed', type=seed, default=0, metavar='N')
    _add_cache(embedded)
    for kind, text, source in (
            ('nuclei', 'BBBC038 in COCO layout', 'stage1_train.zip of BBBC038, or the folder that it unpacks to'),
            ('cifar10', 'CIFAR-10 as pictures, a folder a class',
             'cifar-10-binary.tar.gz, or the folder that it unpacks to')):
        prepare = kinds.add_parser(kind, help=f'{text}, from its published archive')
        prepare.add_argument('source', metavar='SOURCE', help=source)
        prepare.add_argument('--output', required=True, metavar='DIR', help='folder to make')
    check = kinds.add_parser('check', help='verify a COCO or ImageNet folder: files, sizes, boxes, masks, duplicates')
    check.add_argument('root', metavar='DIR', help='annotations/instances_{train,val}*.json beside the folders of '
                                                   'pictures, or train/<class>/ and val/<class>/')
    check.add_argument('--layout', choices=('coco', 'imagenet'), help='default: what is found')
    check.add_argument('--workers', type=positive, metavar='N', help='processes (default: one a CPU core)')
    check.add_argument('--no-decode', action='store_true', help='look at the headers of pictures only')
    check.add_argument('--limit-shown', type=count, default=5, metavar='N', help='examples a problem (default: 5)')
    check.add_argument('--json', metavar='FILE', help='also write the report here')


def _add_profile(commands):
    parser = commands.add_parser('profile', help='time and memory of the packed engine against the reference')
    parser.add_argument('arch', nargs='*', metavar='ARCH', default=['resnet50', 'convnext_small', 'convnext_base'],
                        help='timm convnets (default: resnet50 convnext_small convnext_base)')
    parser.add_argument('--input-size', type=positive, default=224, metavar='PIXELS')
    parser.add_argument('--batch-size', type=positive, default=8, metavar='N')
    parser.add_argument('--mask-ratio', type=float, default=0.6, metavar='RATIO')
    parser.add_argument('--rounds', type=positive, default=5, metavar='N',
                        help='times each engine runs, in turn; the median is printed (default: 5)')
    parser.add_argument('--threads', type=positive, metavar='N', help='CPU threads')
    parser.add_argument('--device', metavar='NAME', help='default: cuda where there is a GPU, else cpu')
    parser.add_argument('--amp', action='store_true', help='bf16 autocast')
    parser.add_argument('--channels-last', action='store_true', help='pictures and weights in channels-last layout')
    parser.add_argument('--keep-memory', action='store_true',
                        help='tell the allocator to keep freed memory, as training on a CPU does')
    parser.add_argument('--json', metavar='FILE', help='also write the figures here')


def _add_inspect(commands):
    parser = commands.add_parser('inspect', help='what a checkpoint holds and can initialise, or what a network costs')
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument('file', nargs='?', metavar='FILE', help='.safetensors or .pth')
    what.add_argument('--arch', metavar='NAME', help='timm network of 1000 classes: parameters, multiply-adds')
    parser.add_argument('--input-size', type=positive, metavar='PIXELS', help='with --arch (default: 224)')
    _add_key_prefix(parser)
    parser.add_argument('--json', action='store_true', help='print JSON')


def _add_convert(commands):
    parser = commands.add_parser('convert', help='write a checkpoint in another format')
    parser.add_argument('file', metavar='FILE', help='.safetensors or .pth, in any known format')
    parser.add_argument('--to', required=True, choices=('timm', 'official', 'mmdet', 'mmpretrain', 'spark',
                                                        'safetensors'))
    parser.add_argument('--output', metavar='FILE', help='.safetensors or .pth (default: beside the input)')
    _add_key_prefix(parser)
    parser.add_argument('--force', action='store_true', help='overwrite the output')


def _add_run(parser, config, data, work_dir='work_dirs/<suite>/<task>/<arch>/<method>/<seed>'):
    parser.add_argument('config', nargs='?', metavar='CONFIG', help=f'mmengine config (default: {config})')
    parser.set_defaults(default_config=config)
    parser.add_argument('--data-root', metavar='DIR', help=f'{data} (default: the embedded data set)')
    parser.add_argument('--arch', metavar='NAME', help='timm convnet (default: the one of the config)')
    parser.add_argument('--seed', type=seed, default=0, metavar='N')
    parser.add_argument('--suite', default='custom', metavar='NAME', help='table of the record (default: custom)')
    parser.add_argument('--method', metavar='NAME', help='row of the table (default: what the weights say)')
    parser.add_argument('--threads', type=positive, metavar='N', help='CPU threads')
    parser.add_argument('--cfg-options', nargs='+', default=[], type=setting, metavar='KEY=VALUE',
                        help='change values of the config, such as train_cfg.max_epochs=2')
    _add_places(parser, work_dir)
    _add_cache(parser)


def _add_speed(parser):
    parser.add_argument('--batch-size', type=positive, metavar='N',
                        help='pictures a device computes at a time (default: what fits the global batch of the config)')
    parser.add_argument('--accumulate', type=positive, metavar='N',
                        help='batches whose gradients are summed for an update (default: the fewest that fit)')
    parser.add_argument('--amp', action=Flag, help='bfloat16 autocast')
    parser.add_argument('--channels-last', action=Flag, help='memory layout')
    parser.add_argument('--workers', type=count, metavar='N', help='processes that load pictures, a training process')
    parser.add_argument('--checkpoint-interval', type=positive, metavar='N',
                        help='updates between checkpoints in mid-epoch (default: what the config says)')
    _add_launcher(parser)


def _add_launcher(parser):
    parser.add_argument('--launcher', choices=('none', 'pytorch', 'torchrun', 'slurm'), default='none',
                        help='what started this process: torchrun (pytorch is another word for it) or srun')


def _add_metric(parser):
    parser.add_argument('--backend', choices=('fast', 'pycocotools'), default='fast',
                        help='of the metrics; figures are the same (default: fast)')
    parser.add_argument('--bootstrap', type=count, default=0, metavar='N',
                        help='resamples of the pictures, for a 95 %% interval of AP (default: 0, none)')


def _add_weights(parser):
    parser.add_argument('--weights', metavar='FILE',
                        help='of the backbone: .safetensors or .pth; spark, supervised, mae or simmim for the '
                             'published file; or scratch (default: what the config says)')
    _add_key_prefix(parser)
    _add_download(parser)


def _add_key_prefix(parser):
    parser.add_argument('--key-prefix', metavar='PREFIX',
                        help='of a file with several networks: what the names of the one to take begin with, such as '
                             'encoder_q. or teacher.backbone.')


def _add_download(parser):
    parser.add_argument('--download', action='store_true', help='fetch a published file that is not there')


def _add_suite(parser):
    parser.add_argument('--suite', default='demo', metavar='NAME',
                        help='of the records, or the file that defines the suite and its tables (default: demo)')
    _add_places(parser, 'work_dirs')


def _add_places(parser, work_dir):
    parser.add_argument('--work-dir', metavar='DIR', help=f'checkpoints, logs, pictures (default: {work_dir})')
    parser.add_argument('--results', default=RESULTS, metavar='DIR', help='records and tables (default: results)')


def _add_cache(parser):
    parser.add_argument('--cache-dir', metavar='DIR',
                        help='for the embedded data set and published weights (default: $SPARK_BENCH_CACHE, '
                             'or else spark_bench in $XDG_CACHE_HOME or ~/.cache)')
