"""train a detector and measure box and mask AP"""

from spark_bench.commands.options import add_metric, add_run, add_speed, add_weights
from spark_bench.commands.parsing import Flag, Namespace, Parser, positive, seed, share
from spark_bench.commands.training import train


def add_options(parser: Parser) -> None:
    add_run(parser, 'mmdet_configs/demo/mask-rcnn_demo.py', 'folder in COCO layout')
    add_weights(parser)
    parser.add_argument(
        '--label-fraction',
        type=share,
        metavar='F',
        help='learn from this share of the annotated images, such as 0.1 (default: all)',
    )
    parser.add_argument('--label-seed', type=seed, metavar='N', help='of the draw of that share')
    parser.add_argument('--frozen', action=Flag, help='keep the weights and statistics of the backbone')
    parser.add_argument(
        '--val-interval',
        type=positive,
        metavar='N',
        help='evaluate every N epochs of the training, or N updates where the recipe counts updates '
        '(default: behind it alone)',
    )
    add_speed(parser)
    add_metric(parser)


def main(args: Namespace) -> int:
    return train(args, 'detection')
