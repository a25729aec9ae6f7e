"""pretrain a network on a folder of images"""

from pretrain.ablations import ABLATIONS, get_ablation
from spark_bench.commands.options import add_run, add_speed
from spark_bench.commands.parsing import Namespace, Parser, count, positive
from spark_bench.commands.training import train
from spark_bench.errors import InputError
from spark_bench.models.methods import METHODS, get_method


def add_options(parser: Parser) -> None:
    add_run(
        parser,
        'pretrain/configs/demo_pretrain.py',
        'folder (any depth, ImageNet, COCO, tar shards), list file .txt, .tar or .zip of images; for supervised, '
        'images in classes as for finetune',
        method=f'{", ".join(METHODS)} (default: what the config says; without a config, spark); without a config, '
        'its small recipe is run',
    )
    parser.add_argument(
        '--ablation',
        metavar='NAME',
        help=f'another word for --method: {", ".join(name for name, value in ABLATIONS.items() if value.pretrains)}',
    )
    parser.add_argument('--epochs', type=positive, metavar='N', help='schedules are stretched to them')
    add_speed(parser)
    parser.add_argument('--bad-images', choices=('fail', 'skip'), help='that cannot be read (default: fail)')
    parser.add_argument(
        '--image-interval', type=count, metavar='N', help='epochs between images of reconstructions; 0: none'
    )
    parser.add_argument(
        '--probe',
        choices=('knn',),
        help='measure the encoder during training: top-1 of nearest neighbours (default: not)',
    )
    parser.add_argument('--probe-interval', type=positive, metavar='N', help='epochs between that (default: 1)')
    parser.add_argument('--probe-data', metavar='DIR', help='labelled images for it, as for finetune')


def main(args: Namespace) -> int:
    if args.ablation is not None:
        get_ablation(args.ablation)
    if args.method is not None:
        args.default_config = get_method(args.method).recipe
    if (args.probe is None) != (args.probe_data is None) or args.probe is None and args.probe_interval is not None:
        raise InputError('--probe knn and --probe-data DIR go together, --probe-interval with them: give both, or none')
    return train(args, 'pretrain')
