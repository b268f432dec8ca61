import torch
from torch import Tensor, nn

from crosscontext.shuffling import Shuffle

BATCH = 12


def test_shuffled_images_come_back_in_their_order_each_step_in_other_groups() -> None:
    shuffle = Shuffle(seed=3, batch_size=BATCH)
    seen: list[Tensor] = []

    class Network(nn.Module):
        def forward(self, batch: Tensor) -> dict[str, Tensor]:
            seen.append(batch)
            rows = batch.flatten(1)
            return {"global": rows[:, :2], "hyper": rows[:, 2:5]}

    batch, orders = torch.randn(BATCH, 3, 6, 6), []
    for step in range(3):
        shuffle.step = step
        embeddings = shuffle.around(Network(), batch)
        assert torch.equal(embeddings["global"], batch.flatten(1)[:, :2])
        assert torch.equal(embeddings["hyper"], batch.flatten(1)[:, 2:5])
        orders.append([next(i for i in range(BATCH) if torch.equal(batch[i], row)) for row in seen[-1]])
    assert all(sorted(order) == list(range(BATCH)) != order for order in orders)
    assert len({tuple(order) for order in orders}) == 3
