"""Train the denoiser that comes with the package, `torchstreamer.models.denoiser()`, on generated speech and noise.

    python examples/denoiser/train.py [denoiser.pt] --minutes 4.2 --folder FOLDER

Speech is random syllables, spoken by espeak-ng in 22 languages and 22 ways; noise is computed. Both are kept in the
folder, with a checkpoint: the same command goes on where it was stopped. The loss is the signal-to-noise ratio of the
output, in dB, with its sign changed. Time is counted in processor time of one thread. With `--synthetic` a small voice
is used that needs no espeak-ng, to try the program. Needs the packages numpy and scipy.
"""

import argparse
import math
import sys
import tempfile
import time
import warnings
from pathlib import Path

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="Failed to initialize NumPy")
    import torch
    from mixing import prepared
    from speech import espeak_is_there
    from torch import Tensor, nn
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    from torchstreamer.models import Denoiser

ROWS = 12
RATE = 3e-3  # of learning, at its greatest
CHECKPOINT_S = 30


def insert_norms(net: nn.Module) -> None:
    """Put a batch norm after every convolution but the last, which a sigmoid follows."""
    for chain in [module for module in net.modules() if isinstance(module, nn.Sequential)]:
        for index, layer in enumerate(chain):
            if isinstance(layer, nn.Conv1d) and not isinstance(chain[index + 1], nn.Sigmoid):
                chain[index] = nn.Sequential(layer, nn.BatchNorm1d(layer.out_channels))


def fold_norms(net: nn.Module) -> None:
    """Take the batch norms into the weights of their convolutions: the form that is used."""
    net.eval()
    for chain in [module for module in net.modules() if isinstance(module, nn.Sequential)]:
        for index, layer in enumerate(chain):
            if isinstance(layer, nn.Sequential) and isinstance(layer[-1], nn.BatchNorm1d):
                convolution, norm = layer[0], layer[-1]
                assert isinstance(convolution, nn.Conv1d)
                chain[index] = fuse_conv_bn_eval(convolution, norm)


def distortion(output: Tensor, clean: Tensor) -> Tensor:
    """Power of what is wrong by power of what is meant, in dB: the mean over the rows. Below -30 dB nothing is won."""
    power = clean.square().mean(-1)
    return (10 * torch.log10((output - clean).square().mean(-1) / power + 1e-3)).mean()


def learning_rate(step: int, share: float) -> float:
    """Rises for 50 steps and falls as a cosine; ``share`` is how much of the training is over."""
    return RATE * min(1.0, (step + 1) / 50) * (0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * min(share, 1.0))))


def main() -> int:
    """Train, and write the weights as float16."""
    parser = argparse.ArgumentParser(description="Train the denoiser on generated speech and noise.")
    parser.add_argument("weights", type=Path, nargs="?", default=Path("denoiser.pt"), help="file to write")
    parser.add_argument("--minutes", type=float, default=4.2, help="of training, processor time")
    parser.add_argument("--steps", type=int, help="train for so many steps instead")
    parser.add_argument("--speech", type=float, default=30.0, help="minutes of speech to generate")
    parser.add_argument("--synthetic", action="store_true", help="a small voice that needs no espeak-ng")
    parser.add_argument("--folder", type=Path, help="where speech, noise and the checkpoint are kept")
    parser.add_argument("--seed", type=int, default=0)
    wanted = parser.parse_args()
    if not wanted.synthetic and not espeak_is_there():
        print("espeak-ng is not installed; install it, or take --synthetic to try the program", file=sys.stderr)
        return 1
    torch.set_num_threads(1)
    torch.manual_seed(wanted.seed)
    folder = wanted.folder or Path(tempfile.mkdtemp(prefix="denoiser-"))
    mixtures = prepared(folder, wanted.speech, wanted.synthetic)
    print(f"{len(mixtures.clean) / 16000 / 60:.1f} minutes of speech and {len(mixtures.noises)} noises in {folder}")

    net = Denoiser()
    insert_norms(net)
    optimizer = torch.optim.AdamW(net.parameters(), RATE, weight_decay=1e-3)
    kept, step, before_s = folder / "checkpoint.pt", 0, 0.0
    if kept.exists():
        state = torch.load(kept, weights_only=True)
        net.load_state_dict(state["net"])
        optimizer.load_state_dict(state["optimizer"])
        step, before_s = state["step"], state["seconds"]
        mixtures.chance = type(mixtures.chance)(type(mixtures.chance.bit_generator)(wanted.seed + step))
        print(f"goes on after {step} steps and {before_s:.0f} s")

    begin, saved_s, average = time.process_time() - before_s, before_s, 0.0
    while True:
        used_s = time.process_time() - begin
        share = step / wanted.steps if wanted.steps else used_s / 60 / wanted.minutes
        if share >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, share)
        noisy, clean = mixtures.batch(ROWS)
        loss = distortion(net(noisy), clean)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimizer.step()
        step += 1
        average = loss.item() if average == 0.0 else 0.98 * average + 0.02 * loss.item()
        if step % 50 == 0:
            print(f"step {step:5d}   {used_s:4.0f} s   {-average:5.2f} dB", flush=True)
        if used_s - saved_s > CHECKPOINT_S:
            saved_s = used_s
            state = {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "seconds": used_s}
            torch.save(state, kept)

    fold_norms(net)
    torch.save({name: value.half() for name, value in net.state_dict().items()}, wanted.weights)
    count, size = sum(p.numel() for p in net.parameters()), wanted.weights.stat().st_size
    print(f"{step} steps, {-average:.2f} dB; {count} parameters, {size} bytes in {wanted.weights}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
