"""fine-tune a classifier and measure top-1"""

from spark_bench.commands.options import add_run, add_speed, add_weights
from spark_bench.commands.parsing import Namespace, Parser, positive, seed, share
from spark_bench.commands.training import train


def add_options(parser: Parser) -> None:
    add_run(
        parser,
        'pretrain/configs/demo_finetune.py',
        'train/<class>/ and val/<class>/ in a folder or .zip, or a folder of tar shards',
    )
    add_weights(parser)
    parser.add_argument('--epochs', type=positive, metavar='N', help='schedules are stretched to them')
    parser.add_argument(
        '--label-fraction',
        type=share,
        metavar='F',
        help='learn from this share of each class, such as 0.1 (default: all)',
    )
    parser.add_argument('--label-seed', type=seed, metavar='N', help='of the draw of that share')
    add_speed(parser)


def main(args: Namespace) -> int:
    return train(args, 'classification')
