"""train Mask R-CNN and measure box and mask AP"""

from spark_bench.commands.options import add_metric, add_run, add_speed, add_weights
from spark_bench.commands.parsing import Namespace, Parser
from spark_bench.commands.training import train


def add_options(parser: Parser) -> None:
    add_run(parser, 'mmdet_configs/demo/mask-rcnn_demo.py', 'folder in COCO layout')
    add_weights(parser)
    add_speed(parser)
    add_metric(parser)


def main(args: Namespace) -> int:
    return train(args, 'detection')
