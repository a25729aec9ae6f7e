"""The embedded data set: scenes composed, without any download, from what the dependencies ship.

Backgrounds and textures are photographs inside the wheels of scikit-image, scikit-learn and
matplotlib; the objects are ten pictographs of the DejaVu Sans font that matplotlib bundles.

``sources`` reads photographs and pictographs, ``scenes`` draws one scene, ``parts`` writes the
three parts of the set, ``cache`` keeps finished sets in the user's cache.
"""

from spark_bench.data.embedded.cache import prepare, verify
from spark_bench.data.embedded.parts import SIZES
from spark_bench.data.embedded.scenes import PARTS, render_scene
from spark_bench.data.embedded.sources import CATEGORIES

__all__ = ['CATEGORIES', 'PARTS', 'SIZES', 'prepare', 'render_scene', 'verify']
