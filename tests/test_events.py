"""Event data from still images: the recipe of `snn_ext.events.saccades`, point by point."""

import pytest
import torch

from snn_ext.events import saccades


@pytest.fixture(scope="module")
def images():
    """Brightness in sixteenths, as in scikit-learn's digits, so that sums and differences are exact."""
    return torch.randint(0, 17, (5, 8, 7), generator=torch.Generator().manual_seed(0)) / 16


def dot(size=1):
    return torch.ones(1, size, size)


def test_shape_dtype_and_values(images):
    events = saccades(images, steps=7, amplitude=2.5)
    assert events.shape == (7, 5, 2, 11, 10)
    assert events.dtype == torch.float32
    assert set(events.unique().tolist()) == {0.0, 1.0}


def test_mnist_takes_the_frame_of_n_mnist():
    assert saccades(torch.zeros(2, 28, 28, dtype=torch.uint8), steps=6, amplitude=6).shape == (
        6,
        2,
        2,
        34,
        34,
    )


def test_an_image_that_does_not_move_sends_nothing(images):
    events = saccades(images, steps=3, amplitude=0.0)
    assert events.shape[-2:] == images.shape[-2:]
    assert not events.any()


def test_an_image_like_its_background_sends_nothing():
    assert not saccades(torch.full((1, 4, 4), 0.5), background=0.5).any()
    assert saccades(torch.full((1, 4, 4), 0.5), background=0.0).any()


def test_the_dot_goes_down_right_then_up_right_then_back():
    on, off = saccades(dot(), steps=3, amplitude=4.0)[:, 0].unbind(1)
    corners = [[0, 0], [4, 2], [0, 4], [0, 0]]
    assert [frame.nonzero().tolist() for frame in off] == [[corner] for corner in corners[:-1]]
    assert [frame.nonzero().tolist() for frame in on] == [[corner] for corner in corners[1:]]


def test_the_first_leg_is_one_third_of_the_time_at_constant_speed():
    on = saccades(dot(), steps=12, amplitude=8.0)[:, 0, 0]
    assert [frame.nonzero().tolist() for frame in on[:4]] == [[[2, 1]], [[4, 2]], [[6, 3]], [[8, 4]]]


def test_between_pixels_brightness_is_shared_out():
    # step 1 of 6 ends at (1, 0.5): half of the dot on either side
    weights = [(0.49, 2), (0.51, 0)]
    for threshold, arrived in weights:
        assert saccades(dot(), steps=6, amplitude=2.0, threshold=threshold)[0, 0, 0].sum() == arrived


def test_events_need_the_threshold_and_no_more(images):
    counts = [saccades(images, threshold=threshold).sum() for threshold in (1 / 64, 0.25, 1.0, 1.01)]
    assert counts[0] > counts[1] > counts[2]
    assert counts[3] == 0
    assert saccades(dot(), steps=3, threshold=1.0).any()  # a change of exactly the threshold counts


@pytest.mark.parametrize("steps", [3, 4, 6])
def test_a_negative_swaps_on_and_off(images, steps):
    events = saccades(images, steps, background=0.0)
    assert torch.equal(saccades(1 - images, steps, background=1.0), events.flip(2))


def test_every_image_is_treated_alike_and_by_itself(images):
    together = saccades(images)
    assert torch.equal(together, saccades(images))
    assert torch.equal(together, torch.cat([saccades(image[None]) for image in images], 1))


def test_uint8_and_float_agree():
    grey = torch.randint(0, 256, (3, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(saccades(grey), saccades(grey.float() / 255))
    assert torch.equal(saccades(grey, threshold=0.0999), saccades(grey.double() / 255, threshold=0.0999))


def test_no_images_give_no_events():
    assert saccades(torch.zeros(0, 8, 8)).shape == (6, 0, 2, 10, 10)


def test_the_input_is_left_alone(images):
    kept = images.clone()
    saccades(images, background=0.25)
    assert torch.equal(images, kept)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"images": [[0.0]]}, TypeError, "images must be a torch.Tensor, got list"),
        ({"images": torch.zeros(8, 8)}, ValueError, r"images must have shape \(N, H, W\), got \(8, 8\)"),
        ({"images": torch.zeros(2, 0, 8)}, ValueError, r"got \(2, 0, 8\)"),
        ({"images": torch.zeros(1, 8, 8, dtype=torch.long)}, TypeError, "got torch.int64; convert"),
        ({"images": torch.full((1, 8, 8), torch.nan)}, ValueError, "images contain NaN"),
        ({"steps": 2}, ValueError, "steps=2 must be at least 3"),
        ({"steps": 6.0}, TypeError, "steps must be an integer, got 6.0"),
        ({"amplitude": -1.0}, ValueError, "amplitude=-1.0 must be finite and not negative"),
        ({"amplitude": torch.inf}, ValueError, "amplitude=inf must be finite"),
        ({"threshold": 0.0}, ValueError, "threshold=0.0 must be positive"),
        ({"threshold": torch.nan}, ValueError, "threshold=nan must be positive"),
        ({"background": torch.inf}, ValueError, "background=inf must be finite"),
    ],
)
def test_errors_name_the_argument_and_the_value(arguments, error, message):
    with pytest.raises(error, match=message):
        saccades(**{"images": torch.zeros(1, 8, 8), **arguments})


@pytest.fixture(scope="module")
def digits():
    datasets = pytest.importorskip("sklearn.datasets")
    data = datasets.load_digits()
    return saccades(torch.as_tensor(data.images / 16)), torch.as_tensor(data.target)


def test_few_pixels_are_active_on_digits(digits):
    events, _ = digits
    assert 0.02 < events.mean() < 0.3
    assert not (events[:, :, 0] * events[:, :, 1]).any()  # never both


@pytest.mark.parametrize("what", ["all steps", "first leg"])
def test_a_linear_readout_learns_the_classes_of_digits(digits, what):
    events, labels = digits
    x = (events if what == "all steps" else events[:2]).transpose(0, 1).flatten(1).double()
    x = torch.cat([x, torch.ones(len(x), 1)], 1)
    train, test = slice(0, 1300), slice(1300, None)
    targets = torch.nn.functional.one_hot(labels[train]).double()
    weights = torch.linalg.solve(x[train].T @ x[train] + 10 * torch.eye(x.shape[1]), x[train].T @ targets)
    assert ((x[test] @ weights).argmax(1) == labels[test]).double().mean() > 0.8
