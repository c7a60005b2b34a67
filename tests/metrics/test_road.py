"""ROAD: against pytorch-grad-cam's loop over percentiles, its orders, and what the shares are of."""

import numpy as np
import pytest
import torch

from metric_samples import answer, heat
from small_nets import SmallNet, drawn, pictures
from test_imputing import by_solving
from whence.errors import OptionError
from whence.metrics import measure

SHARES = (10.0, 40.0, 70.0, 90.0)
SIDE = 10  # so that every tenth of the area is a whole number of pixels


@pytest.fixture(scope="module")
def net():
    return drawn(SmallNet(), shape=(3, SIDE, SIDE)).eval()


def removed(x, one, percentile, least):
    """Return a picture imputed as in pytorch-grad-cam: kept is what lies under the percentile of the map."""
    ranked = 1 - one if least else one
    known = torch.from_numpy(ranked < np.percentile(ranked, percentile))
    noise = 0.01 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).double()
    return torch.where(known, x, by_solving(x, known) + noise)


def by_percentiles(net, x, one, target, least):
    """Return the probability at every percentile; the peers' percentile p removes 100 - p per cent."""
    with torch.no_grad():
        inputs = torch.stack([removed(x, one, 100 - share, least) for share in SHARES])
        return net(inputs).softmax(1)[:, target]


@pytest.mark.parametrize("order", ["most", "least", "combined"])
def test_it_is_the_peer_s_average_over_percentiles(net, order):
    x, maps = pictures(2, size=SIDE), heat(2, SIDE, SIDE)
    found = measure(net, x, answer(maps, x, 1), "road", order=order, percentiles=SHARES)
    assert found.curve.share.tolist() == [0.1, 0.4, 0.7, 0.9]
    for row in range(2):
        one = maps[row, 0].numpy()
        most, least = (by_percentiles(net, x[row], one, 1, which) for which in (False, True))
        wanted = {"most": most, "least": least, "combined": (least - most) / 2}[order]
        torch.testing.assert_close(found.curve.value[row], wanted, rtol=1e-4, atol=1e-6)
        assert float(found.value[row]) == pytest.approx(float(wanted.mean()), rel=1e-3, abs=1e-6)


def test_the_opposite_map_has_the_opposite_value(net):
    x, maps = pictures(2, size=SIDE), heat(2, SIDE, SIDE)
    one, other = (measure(net, x, answer(m, x), "road", percentiles=SHARES).value for m in (maps, -maps))
    torch.testing.assert_close(one, -other, rtol=1e-9, atol=1e-12)
    assert one.abs().min() > 0


def test_a_constant_map_has_none(net):
    x = pictures(2, size=SIDE)
    found = measure(net, x, answer(torch.ones(2, 1, 5, 5).double(), x), "road", percentiles=SHARES)
    torch.testing.assert_close(found.value, torch.zeros(2).double())


@pytest.mark.parametrize("percentiles", [(0.0,), (100.0,), (20.0, 120.0), (-5.0,)])
def test_shares_lie_between_0_and_100(net, percentiles):
    x = pictures(1, size=SIDE)
    with pytest.raises(OptionError, match="give shares of the picture between 0 and 100"):
        measure(net, x, answer(heat(1, SIDE, SIDE), x), "road", percentiles=percentiles)
