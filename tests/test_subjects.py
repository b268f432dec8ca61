import numpy as np
import torch

from crosscontext.features import extract
from examined import Unreadable, encoder, examined, pictures, pixels


def test_a_sample_has_readable_images_with_the_rows_of_their_features() -> None:
    subject = examined(Unreadable(pictures(20), [0, 7, 13]), pixels())
    sample = subject.sample_test(12)
    assert len(sample.images.names) == 12
    assert len(set(sample.images.names)) == 12
    values = extract(subject.model, sample.images, batch_size=5, workers=1).values
    assert torch.equal(values, subject.test.values[sample.rows])


def test_a_sample_is_the_start_of_a_larger_one_and_depends_on_the_seed() -> None:
    subject = examined(pictures(20), pixels())
    few, all_of_them = subject.sample_test(6), subject.sample_test(100)
    assert all_of_them.images.names[:6] == few.images.names
    assert sorted(all_of_them.images.names) == [f"{i:03}" for i in range(20)]
    assert examined(pictures(20), pixels(), seed=1).sample_test(6).images.names != few.images.names


def test_a_network_is_copied_and_can_be_trained() -> None:
    subject = examined(pictures(4), encoder())
    assert subject.has_network
    assert not examined(pictures(4), pixels()).has_network
    before = subject.model.digest
    with torch.no_grad():
        for parameter in subject.network().parameters():
            assert parameter.requires_grad
            parameter.zero_()
    assert subject.model.digest == before
    assert np.isfinite(subject.test.values.numpy()).all()
