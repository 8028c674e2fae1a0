"""What several test modules need."""

from ltx.pruning import masks
from ltx.pruning.scores import magnitude


def halved(task):
    """A ticket with half of every layer's weights."""
    dense = task.dense()
    kept = {name: task.layers.sizes[name] // 2 for name in dense.mask}
    return dense.masked(masks.by_layer(magnitude(dense.weights), dense.mask, kept))
