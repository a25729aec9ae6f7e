"""The COCO format: its annotations read and judged one by one, and mmdet's data set and transforms of them."""
