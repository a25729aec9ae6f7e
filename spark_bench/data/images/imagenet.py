"""ImageNet's thousand classes by each of the names that files and data sets give them."""

from collections.abc import Sequence
from functools import cache

from timm.data import ImageNetInfo

# Lists of words differ in many names (crane, crane bird); of another order hardly one is in its place.
_ALIKE = 0.5


def imagenet_places(names: Sequence[str]) -> tuple[int, ...] | None:
    """Which of ImageNet-1k's classes, from 0, each name stands for.

    Args:
        names: WordNet's numbers (``n01440764``), any of them; or all thousand by number (``0`` … ``999``), or in words
            (``tench, Tinca tinca``) in the order of those, as some words are of two classes.

    Returns:
        a place for each name; None where they are not all ImageNet's.
    """
    numbers, words = _known()
    if names and all(name in numbers for name in names):
        return tuple(numbers[name] for name in names)
    if len(names) != len(words):
        return None
    if set(names) == set(map(str, range(len(words)))):
        return tuple(map(int, names))
    alike = sum(_first_word(name) == word for name, word in zip(names, words, strict=True))
    return tuple(range(len(words))) if alike >= _ALIKE * len(words) else None


@cache
def _known():
    """Place by WordNet's number, and the first word of each class in order. Source: the lists that timm ships."""
    info = ImageNetInfo('imagenet-1k')
    places = range(info.num_classes())
    numbers = {info.index_to_label_name(place): place for place in places}
    return numbers, [_first_word(info.index_to_description(place)) for place in places]


def _first_word(name):
    return name.partition(',')[0].strip().lower().replace('_', ' ')
