"""A teacher that sees the images of a batch in other groups than the student: ShuffleBN.

distributed → **shuffling** → teacher. Source: MoCo, arXiv 1911.05722, section 3.3.
"""

from typing import Any

import torch
from torch import Tensor, nn

from crosscontext import distributed
from crosscontext.randomness import permutation


class Shuffle:
    """Lets a teacher see each image in another group than the student does.

    Args:
        seed: of the run.
        batch_size: of the global batch.

    Attributes:
        step: of the run; it decides the order, with the seed.
    """

    def __init__(self, seed: int, batch_size: int):
        self._seed, self._batch_size = seed, batch_size
        self.step = 0

    def around(self, network: nn.Module, images: Tensor) -> Any:
        """Embed shuffled images, and put the embeddings back into the order of the images.

        Args:
            network: images → one tensor of rows, or several by name.
            images: this process's share of the batch.
        """
        # Epochs of images count up from 0: other numbers, other orders.
        order = torch.from_numpy(permutation(self._seed, -1 - self.step, self._batch_size))
        shuffled = distributed.exchange(images, order).contiguous(memory_format=torch.channels_last)
        embeddings, back = network(shuffled), order.argsort()
        if isinstance(embeddings, Tensor):
            return distributed.exchange(embeddings, back)
        packed = distributed.exchange(torch.cat(list(embeddings.values()), dim=1), back)
        widths = [rows.shape[1] for rows in embeddings.values()]
        return dict(zip(embeddings, packed.split(widths, dim=1), strict=True))
