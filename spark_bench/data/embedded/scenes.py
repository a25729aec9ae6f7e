"""One scene: photograph, pictographs laid over it, and which pixel belongs to which.

Composition is binary at final resolution: a pixel belongs to an object or it does not, so the masks
are exact and no anti-aliased rim is shared. A scene depends on (version, seed, part, index) alone,
never on scenes drawn before it, so scenes may be drawn in any order and by any number of processes.

Shape suffixes: H and W are the scene's 256 rows and columns, 3 is RGB.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from spark_bench.data.embedded.sources import CATEGORIES, GLYPH_SIDES, photographs, pictograph

VERSION = 1
"""Version of the generator; a change that alters an image or a label needs a new one."""

SIDE = 256
"""Height and width of every scene, in pixels."""

PARTS = ('unlabelled', 'classification/train', 'classification/val', 'detection/train', 'detection/val')
"""Parts of the set. The position is part of the seed: append, never reorder."""

# An object with less than this to see is not labelled, so it must not be in the image either.
_MIN_VISIBLE_PIXELS = 60
_MIN_VISIBLE_SHARE = 0.25

# Longer sides in pixels, before the perspective, with their probabilities: about half of a silhouette's
# square is filled, so these give areas below 32^2, between, and above 96^2.
_SIZE_RANGES = ((30, 54), (54, 120), (125, 190))
_SIZE_CHANCES = (0.3, 0.4, 0.3)

_CROWDED_CHANCE = 0.25
_COLOUR_DISTANCE = 110
_COLOUR_TRIALS = 16


@dataclass(frozen=True)
class Layer:
    """One object before composition.

    Attributes:
        category_id: 1 to 10, the position in ``CATEGORIES`` plus one.
        mask_HW: bool, the silhouette inside the image, before anything is laid over it.
        colour_HW3: uint8 RGB, what the object shows where it is visible; 0 outside ``mask_HW``.
    """

    category_id: int
    mask_HW: np.ndarray
    colour_HW3: np.ndarray


@dataclass(frozen=True)
class Scene:
    """A composed scene and what it was composed from.

    Attributes:
        image_HW3: uint8 RGB, the image before JPEG.
        owner_HW: int16, 0 where the background shows, k where ``layers[k - 1]`` shows.
        background_HW3: uint8 RGB, the photograph without objects.
        layers: the objects, later ones on top; each has at least 60 visible pixels.
    """

    image_HW3: np.ndarray
    owner_HW: np.ndarray
    background_HW3: np.ndarray
    layers: tuple[Layer, ...]

    @property
    def categories(self) -> tuple[str, ...]:
        """Names of the objects' categories, in the order of ``layers``."""
        return tuple(CATEGORIES[layer.category_id - 1] for layer in self.layers)


def render_scene(seed: int, part: str, index: int) -> Scene:
    """Draw one scene.

    Args:
        seed: non-negative integer, the seed of the whole set.
        part: one of ``PARTS``.
        index: position in the part, from 0. Classification images take the categories in turn.

    Returns:
        The ``Scene``; the same for the same arguments and library versions.

    Raises:
        InputError: a photograph or the font is missing from its package.
    """
    sequence = np.random.SeedSequence([VERSION, seed, PARTS.index(part), index])
    rng = np.random.default_rng(sequence)
    background_HW3 = _draw_background(rng)
    silhouettes: list[tuple[int, np.ndarray]] = []
    while not silhouettes:  # all of them can fall to the visibility rule, if rarely
        if part.startswith('classification'):
            silhouettes = [_draw_large_silhouette(rng, 1 + index % len(CATEGORIES))]
        else:
            silhouettes = _drop_hidden(_draw_silhouettes(rng))
    image_HW3 = background_HW3.copy()
    owner_HW = np.zeros((SIDE, SIDE), np.int16)
    layers = []
    for position, (category_id, mask_HW) in enumerate(silhouettes, start=1):
        colour_HW3 = _draw_colour(rng, mask_HW, image_HW3)
        cv2.copyTo(colour_HW3, mask_HW.view(np.uint8), image_HW3)
        owner_HW[mask_HW] = position
        layers.append(Layer(category_id, mask_HW, colour_HW3))
    return Scene(image_HW3, owner_HW, background_HW3, tuple(layers))


def _draw_background(rng):
    """Return a random crop of a random photograph, scaled to the scene, with altered light and tint."""
    crop = _crop_photograph(rng, 140, 512, SIDE, SIDE)
    gain_3 = rng.uniform(0.7, 1.15) * rng.uniform(0.85, 1.15, 3)
    table = np.clip(np.arange(256)[:, None] * gain_3, 0, 255).astype(np.uint8)
    return cv2.LUT(crop, table.reshape(1, 256, 3))


def _crop_photograph(rng, smallest, largest, width, height):
    """Return a square crop of a photograph, plain or mirrored, scaled to (height, width, 3) uint8.

    Args:
        smallest, largest: bounds, in pixels of the photograph, of the crop's side.
    """
    photograph = photographs()[rng.integers(len(photographs()))]
    rows, columns = photograph.shape[:2]
    largest = min(largest, rows, columns)
    side = int(rng.integers(min(smallest, largest), largest + 1))
    top, left = rng.integers(rows - side + 1), rng.integers(columns - side + 1)
    crop = photograph[top : top + side, left : left + side]
    interpolation = cv2.INTER_AREA if side > max(width, height) else cv2.INTER_LINEAR
    crop = cv2.resize(crop, (width, height), interpolation=interpolation)
    return cv2.flip(crop, 1) if rng.random() < 0.5 else crop


def _draw_large_silhouette(rng, category_id):
    """Return the one object of a classification image as (category id, mask)."""
    centre_2 = SIDE / 2 + rng.uniform(-36, 36, 2)
    return category_id, _warp_pictograph(rng, category_id, rng.uniform(110, 205), centre_2)


def _draw_silhouettes(rng):
    """Return one to six objects as (category id, mask), scattered or, now and then, in a cluster."""
    if rng.random() < _CROWDED_CHANCE:
        count = rng.integers(4, 7)
        size = rng.uniform(45, 95)
        sizes = size * rng.uniform(0.75, 1.3, count)
        centres = rng.uniform(0.2, 0.8, 2) * SIDE + rng.normal(0, 0.6 * size, (count, 2))
    else:
        count = rng.integers(1, 7)
        ranges = rng.choice(_SIZE_RANGES, count, p=_SIZE_CHANCES)
        sizes = np.exp(rng.uniform(*np.log(ranges).T))
        sizes = np.sort(sizes)[::-1]  # small ones on top: below a large one they would only be dropped
        centres = rng.uniform(0, SIDE, (count, 2))
    categories = rng.integers(1, len(CATEGORIES) + 1, count)
    # Truncated objects keep half of themselves or so; large ones more, or few would show a large area.
    margins = (np.where(sizes > 115, 0.3, 0.1) * sizes)[:, None]
    centres = np.clip(centres, margins, SIDE - margins)
    return [
        (int(category_id), _warp_pictograph(rng, category_id, size, centre_2))
        for category_id, size, centre_2 in zip(categories, sizes, centres, strict=True)
    ]


def _warp_pictograph(rng, category_id, size, centre_2):
    """Return the mask (H, W) bool of a pictograph under a random affine map with mild perspective.

    Args:
        size: longer side in pixels before rotation, shear and perspective.
        centre_2: column and row of the centre, in pixels.
    """
    side = min((side for side in GLYPH_SIDES if side >= size), default=GLYPH_SIDES[0])
    glyph = pictograph(int(category_id))[GLYPH_SIDES.index(side)]
    height, width = glyph.shape
    turn = np.deg2rad(rng.uniform(-15, 15))
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    shear = np.array([[1, rng.uniform(-0.12, 0.12)], [0, 1]])
    stretch = np.exp(rng.uniform(-0.15, 0.15))
    mirror = rng.choice((-1, 1))
    linear = rotation @ shear @ np.diag([mirror * stretch, 1 / stretch]) * size / max(height, width)
    corners_42 = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
    target_42 = (corners_42 - (width / 2, height / 2)) @ linear.T + centre_2
    target_42 += rng.uniform(-0.06, 0.06, (4, 2)) * size
    # Only the box that the object may touch is warped: most objects are small.
    left, top = np.clip(np.floor(target_42.min(axis=0)), 0, SIDE - 1).astype(int)
    right, bottom = np.clip(np.ceil(target_42.max(axis=0)), (left + 1, top + 1), SIDE).astype(int)
    target_42 -= (left, top)
    # OpenCV puts the centre of the first pixel at 0, geometry puts it at one half.
    transform = cv2.getPerspectiveTransform(corners_42 - 0.5, target_42.astype(np.float32) - 0.5)
    coverage = cv2.warpPerspective(glyph, transform, (int(right - left), int(bottom - top)))
    mask_HW = np.zeros((SIDE, SIDE), bool)
    mask_HW[top:bottom, left:right] = coverage >= 128
    return mask_HW


def _drop_hidden(silhouettes):
    """Return the objects that show enough of themselves, in the same order.

    The worst offender goes first and the rest is judged anew, since what it hid shows again.
    """
    silhouettes = list(silhouettes)
    while silhouettes:
        shares = []
        covered_HW = np.zeros((SIDE, SIDE), bool)
        for _, mask_HW in reversed(silhouettes):
            visible = np.count_nonzero(mask_HW & ~covered_HW)
            share = visible / max(1, np.count_nonzero(mask_HW))
            shares.append(share if visible >= _MIN_VISIBLE_PIXELS else 0)
            covered_HW |= mask_HW
        shares.reverse()
        worst = int(np.argmin(shares))
        if shares[worst] >= _MIN_VISIBLE_SHARE:
            break
        del silhouettes[worst]
    return silhouettes


def _draw_colour(rng, mask_HW, image_HW3):
    """Return the colour layer (H, W, 3) of an object: a tinted photograph, unlike what lies under it.

    The texture stays weaker than the distance between object and ground, so the outline carries the
    category and the object is never lost in the ground.
    """
    left, top, width, height = cv2.boundingRect(mask_HW.view(np.uint8))
    box = slice(top, top + height), slice(left, left + width)
    inside = mask_HW[box].view(np.uint8)
    ground_3 = np.array(cv2.mean(image_HW3[box])[:3])
    under_3 = np.array(cv2.mean(image_HW3[box], inside)[:3])
    tint_3 = _choose_tint(rng, (ground_3, under_3))
    # Not much larger than the object: shrunk further, any texture becomes noise.
    texture = _crop_photograph(rng, 64, 64 + 2 * max(width, height), width, height).astype(np.float32)
    mean, deviation = cv2.meanStdDev(texture, mask=inside)
    texture -= mean[:, 0].astype(np.float32)
    texture *= rng.uniform(6, 16) / max(1.0, float(deviation.mean()))
    texture += tint_3.astype(np.float32)
    colour_HW3 = np.zeros((SIDE, SIDE, 3), np.uint8)
    cv2.copyTo(cv2.convertScaleAbs(np.maximum(texture, 0)), inside, colour_HW3[box])
    return colour_HW3


def _choose_tint(rng, grounds):
    """Return an RGB colour at the wanted distance from all ``grounds``, or the furthest that was tried."""
    hue_saturation_value = rng.uniform((0, 0.25, 0.3), (360, 1, 0.95), (_COLOUR_TRIALS, 3))
    tints = cv2.cvtColor(hue_saturation_value[None].astype(np.float32), cv2.COLOR_HSV2RGB)[0] * 255
    distances = np.min([np.linalg.norm(tints - ground_3, axis=1) for ground_3 in grounds], axis=0)
    far = np.flatnonzero(distances >= _COLOUR_DISTANCE)
    return tints[far[0] if far.size else np.argmax(distances)]
