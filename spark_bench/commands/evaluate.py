"""measure a trained detector, or the features of a network"""

from spark_bench.commands import training
from spark_bench.commands.options import add_key_prefix, add_launcher, add_metric, add_run
from spark_bench.commands.parsing import Namespace, Parser, count, positive, seed, share
from spark_bench.errors import InputError
from spark_bench.places import RESULTS

_PROBE = ('input_size', 'label_fraction', 'label_seed', 'batch_size', 'amp', 'device', 'download', 'key_prefix')
# Of a record, which evaluations of a whole model leave none.
_RECORD = ('seed', 'suite', 'method', 'results')
# What can be measured, and the options that are for some of it only.
_PROTOCOLS = {
    'detection': ('config', 'cfg_options', 'backend', 'bootstrap'),
    'finetune': ('config', 'cfg_options', 'key_prefix'),
    'linear': (*_PROBE, *_RECORD),
    'knn': (*_PROBE, *_RECORD, 'neighbours'),
}
_NOT_GIVEN = {'cfg_options': [], 'backend': 'fast', 'bootstrap': 0, 'download': False}
_NOT_GIVEN |= {'seed': 0, 'suite': 'custom', 'results': RESULTS}


def add_options(parser: Parser) -> None:
    parser.add_argument(
        '--protocol',
        choices=tuple(_PROTOCOLS),
        default='detection',
        help='detection: box and mask AP of a detector (default); finetune: top-1 of a fine-tuned '
        'classifier; linear: of a linear classifier on frozen features; knn: of nearest '
        'neighbours',
    )
    add_run(
        parser,
        'mmdet_configs/demo/mask-rcnn_demo.py',
        'folder in COCO layout; for the other protocols, images in classes as for finetune',
        'work_dirs/evaluate/<config>/<weights>-<digest>; for linear and knn '
        'work_dirs/<suite>/probes/<arch>/<method>/<seed>',
    )
    parser.add_argument(
        '--weights',
        metavar='FILE',
        help='of the whole detector: detector.safetensors of a work directory, or a .pth of mmdet; '
        'classifier.safetensors for finetune; for linear and knn, of a network in any format, '
        'or spark, supervised … for the published file of --arch (default: scratch, a random one)',
    )
    add_launcher(parser)
    parser.add_argument('--workers', type=count, metavar='N', help='processes that load images, a process')
    add_metric(parser)
    # Of linear and knn; None where they are not given.
    parser.add_argument('--input-size', type=positive, metavar='P', help='side of the images (default: 224)')
    parser.add_argument(
        '--label-fraction',
        type=share,
        metavar='F',
        help='learn from this share of each class, such as 0.1 (default: all)',
    )
    parser.add_argument('--label-seed', type=seed, metavar='N', help='of the draw of that share (default: 0)')
    parser.add_argument('--neighbours', type=positive, metavar='K', help='knn only (default: 20)')
    parser.add_argument('--batch-size', type=positive, metavar='N', help='images at a time (default: 64)')
    parser.add_argument('--amp', action='store_true', default=None, help='compute features in bfloat16 autocast')
    parser.add_argument('--device', metavar='NAME', help='default: cuda where there is a GPU, else cpu')
    add_key_prefix(parser)
    parser.add_argument('--download', action='store_true', help='fetch a published file that is not there')


def main(args: Namespace) -> int:
    for name in sorted({name for names in _PROTOCOLS.values() for name in names}.difference(_PROTOCOLS[args.protocol])):
        if getattr(args, name) != _NOT_GIVEN.get(name):
            odd = 'CONFIG' if name == 'config' else f'--{name.replace("_", "-")}'
            raise InputError(f'{odd} has no meaning for --protocol {args.protocol}: leave it away')
    return _evaluate_features(args) if args.protocol in ('linear', 'knn') else _evaluate_trained(args)


def _evaluate_trained(args):
    from spark_bench.runs import detect, finetune
    from spark_bench.runs.evaluation import evaluate

    kind, options = detect.DetectorEvaluation, detect.DetectOptions
    if args.protocol == 'finetune':
        kind, options = finetune.ClassifierEvaluation, finetune.FinetuneOptions
        args.default_config = 'pretrain/configs/demo_finetune.py'
        if args.config is None and args.weights is not None:
            args.cfg_options = [*finetune.stated_evaluation(args.weights).items(), *args.cfg_options]
    metrics, folder = evaluate(kind, training.run_options(args, options))
    if training.is_first():
        print(f'{args.weights}: {training.as_line(metrics)}\nmetrics: {folder}/metrics.json')
    return 0


def _evaluate_features(args):
    from spark_bench.runs import probe

    record = probe.run(training.run_options(args, probe.ProbeOptions, task=args.protocol))
    if record is not None:
        training.show(record, args.results)
    return 0
