"""Designs of filters against SciPy, the standard, and what their names promise."""

import numpy as np
import pytest
import scipy.signal
import torch

from torchstreamer.audio import biquad, butterworth, k_weighting

FS, F = 48_000.0, 3000.0


def gain_db(sos, *frequencies_hz: float) -> list[float]:
    _, h = scipy.signal.freqz_sos(sos.numpy(), worN=np.array(frequencies_hz), fs=FS)
    return [round(float(value), 6) for value in 20 * np.log10(np.maximum(np.abs(h), 1e-10))]


def test_what_each_kind_does():
    # At 0 Hz, at its frequency, and at half the rate.
    at = (0.0, F, FS / 2)
    low, at_f, high = gain_db(biquad("lowpass", FS, F, q=2.0), *at)
    assert (low, at_f) == (0, round(20 * np.log10(2), 6)) and high < -150
    low, at_f, high = gain_db(biquad("highpass", FS, F), *at)
    assert low < -150 and (round(at_f, 2), high) == (-3.01, 0)
    low, at_f, high = gain_db(biquad("bandpass", FS, F, q=5), *at)
    assert low < -150 and at_f == 0 and high < -150
    low, at_f, high = gain_db(biquad("notch", FS, F, q=5), *at)
    assert (low, high) == (0, 0) and at_f < -150
    assert gain_db(biquad("allpass", FS, F, q=5), *at, 500.0) == [0, 0, 0, 0]
    assert gain_db(biquad("peaking", FS, F, q=5, gain_db=6), *at) == [0, 6, 0]
    assert gain_db(biquad("lowshelf", FS, F, gain_db=6), *at) == [6, 3, 0]
    assert gain_db(biquad("highshelf", FS, F, gain_db=-6), *at) == [0, -3, -6]
    # The quality is the frequency by the width at -3 dB, as far as the bilinear transform does not warp it.
    edges = gain_db(biquad("bandpass", FS, F, q=30), F - 50, F + 50)
    assert np.abs(np.array(edges) + 3.01).max() < 0.2


@pytest.mark.parametrize("kind", ["lowpass", "highpass"])
def test_butterworth_is_that_of_scipy(kind):
    for order in range(1, 10):
        _, expected = scipy.signal.freqz_sos(scipy.signal.butter(order, F, kind, fs=FS, output="sos"))
        sos = butterworth(kind, FS, F, order)
        _, found = scipy.signal.freqz_sos(sos.numpy())
        assert sos.shape == ((order + 1) // 2, 6) and np.abs(found - expected).max() < 1e-10


def test_the_coefficients_of_the_standard():
    # ITU-R BS.1770-5, tables 1 and 2, at 48 kHz.
    shelf = [1.53512485958697, -2.69169618940638, 1.19839281085285, 1, -1.69065929318241, 0.73248077421585]
    highpass = [1, -2, 1, 1, -1.99004745483398, 0.99007225036621]
    expected = torch.tensor([shelf, highpass], dtype=torch.float64)
    torch.testing.assert_close(k_weighting(48_000), expected, rtol=0, atol=1e-12)
    # Other rates have the same response.
    frequencies = np.array([20.0, 100, 1000, 5000])
    responses = [scipy.signal.freqz_sos(k_weighting(fs).numpy(), worN=frequencies, fs=fs)[1] for fs in (48e3, 96e3)]
    assert np.abs(20 * np.log10(np.abs(responses[0] / responses[1]))).max() < 0.05


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: biquad("low", FS, F), "invalid_kind"),
        (lambda: biquad("lowpass", FS, FS / 2), "invalid_frequency_hz"),
        (lambda: biquad("lowpass", FS, F, q=0), "invalid_q"),
        (lambda: butterworth("bandpass", FS, F), "invalid_kind"),
        (lambda: butterworth("lowpass", FS, F, 0), "invalid_order"),
        (lambda: k_weighting(3000), "invalid_frequency_hz"),
    ],
)
def test_refused(make, code):
    with pytest.raises(ValueError, match=f"^{code}: .*; .*; "):
        make()
