"""A voice detector like Silero VAD 5 (Silero Team, "Silero VAD", 2024): windows with context, convolutions, an LSTM."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Silero(nn.Module):
    """[B, 1, T] to a probability for each window of ``window`` samples: [B, 1, T / window].

    Each window is seen with the ``context`` samples before it, zeros at the start, and padded by reflection on its
    right alone. So what a window's convolutions give does not depend on the windows around it; the LSTM carries what
    does.
    """

    def __init__(
        self, window: int = 512, context: int = 64, filters: int = 256, step: int = 128, hidden: int = 128
    ) -> None:
        super().__init__()
        self.window, self.context = window, context
        self.bins = filters // 2 + 1
        self.stft = nn.Conv1d(1, 2 * self.bins, filters, stride=step, bias=False)
        self.encoder = nn.Sequential(
            nn.Conv1d(self.bins, hidden, 3, padding=1),
            nn.ReLU(),
            nn.Conv1d(hidden, hidden // 2, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv1d(hidden // 2, hidden // 2, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv1d(hidden // 2, hidden, 3, padding=1),
            nn.ReLU(),
        )
        self.rnn = nn.LSTM(hidden, hidden, batch_first=True)
        self.decoder = nn.Sequential(nn.Dropout(0.1), nn.ReLU(), nn.Conv1d(hidden, 1, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        rows = x.shape[0]
        windows = F.pad(x, (self.context, 0)).unfold(-1, self.window + self.context, self.window)
        count = windows.shape[2]
        y = windows.reshape(rows * count, 1, self.window + self.context)
        y = self.stft(F.pad(y, (0, self.context), mode="reflect"))
        real, imaginary = y[:, : self.bins], y[:, self.bins :]
        y = self.encoder(torch.sqrt(real.square() + imaginary.square() + 1e-12))
        y = y.mean(2).reshape(rows, count, -1)
        return self.decoder(self.rnn(y)[0].transpose(1, 2))
