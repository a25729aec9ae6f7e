"""ImageNet's thousand classes by each of the names that files and data sets give them."""

from collections.abc import Sequence

from timm.data import ImageNetInfo

# Lists of words differ in many names (crane, crane bird); of another order hardly one is in its place.
_ALIKE = 0.5
# Source: the lists that timm ships.
_INFO = ImageNetInfo('imagenet-1k')
# WordNet's numbers, in the order of the classes, which is theirs.
WNIDS = tuple(_INFO.index_to_label_name(place) for place in range(_INFO.num_classes()))
_PLACES = {name: place for place, name in enumerate(WNIDS)}


def imagenet_places(names: Sequence[str]) -> tuple[int, ...] | None:
    """Which of ImageNet-1k's classes, from 0, each name stands for.

    Args:
        names: WordNet's numbers (``n01440764``), any of them; or all thousand by number (``0`` … ``999``), or in words
            (``tench, Tinca tinca``) in the order of those, as some words are of two classes.

    Returns:
        a place for each name; None where they are not all ImageNet's.
    """
    if names and all(name in _PLACES for name in names):
        return tuple(_PLACES[name] for name in names)
    if len(names) != len(WNIDS):
        return None
    if set(names) == set(map(str, range(len(WNIDS)))):
        return tuple(map(int, names))
    words = [_first_word(_INFO.index_to_description(place)) for place in range(len(WNIDS))]
    alike = sum(_first_word(name) == word for name, word in zip(names, words, strict=True))
    return tuple(range(len(WNIDS))) if alike >= _ALIKE * len(WNIDS) else None


def _first_word(name):
    return name.partition(',')[0].strip().lower().replace('_', ' ')
