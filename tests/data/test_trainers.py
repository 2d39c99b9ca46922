"""Batches know their place, so training goes on with the right one, also where a trainer fetches them ahead."""

import copy
import itertools
import pickle

import pytest
import torch
import torch.utils._pytree as pytree
from following import open_stream, same
from torch import nn

from torchstreamer import StreamBatch, StreamDataLoader, StreamDataset, StreamInputError

pytestmark = pytest.mark.timeout(240)

STREAMS = [[3, 1], [2], [], [1, 1, 1, 2], [4, 2], [1], [2, 2, 2]]


def make_loader(workers=0, collate_fn=None, **options):
    return StreamDataLoader(StreamDataset(list(enumerate(STREAMS)), open_stream, 3, **options), workers, collate_fn)


# ---------------------------------------------------------------------- the place of a batch


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("options", [{}, {"shuffle": True, "padding_mode": "data"}, {"assignment": "in_time"}])
def test_the_state_after_any_batch_of_two_epochs(workers, options):
    loader = make_loader(workers, **options)
    epochs = [list(loader), list(loader)]
    for number, batches in enumerate(epochs):
        for at, batch in enumerate(batches):
            for given in (batch, batch.place, batch.to("cpu"), copy.deepcopy(batch), pickle.loads(pickle.dumps(batch))):
                state = loader.state_dict(after=given)
                assert (state["epoch"], state["batch"]) == (
                    (number, at + 1) if at + 1 < len(batches) else (number + 1, 0)
                )
            resumed = make_loader(workers, **options)
            resumed.load_state_dict(state)
            rest = batches[at + 1 :] if at + 1 < len(batches) else next(iter(epochs[number + 1 :]), list(resumed))
            resumed.load_state_dict(state)
            assert all(same(a, b) for a, b in zip(resumed, rest, strict=True))


def test_without_a_batch_the_last_one_is_meant():
    loader = make_loader()
    batches = list(itertools.islice(iter(loader), 3))
    assert loader.state_dict() == loader.state_dict(after=batches[2]) != loader.state_dict(after=batches[1])
    resumed = make_loader()
    resumed.load_state_dict(loader.state_dict(after=batches[0]))
    again = next(iter(resumed))
    assert same(again, batches[1])
    assert resumed.state_dict(after=again) == loader.state_dict(after=batches[1])


def test_what_has_no_place():
    batch = next(iter(make_loader()))
    loader = make_loader(collate_fn=list)
    for after in (next(iter(loader)), 3, StreamBatch(*[batch.valid] * 7)):
        with pytest.raises(StreamInputError, match=f"^no_place: after is a {type(after).__name__};"):
            loader.state_dict(after=after)


# ---------------------------------------------------------------------- trees


def chunks_of(stream):
    for number in range(3):
        yield {
            "x": torch.full((1, 4), float(10 * stream + number)),
            "name": f"s{stream}",
            "pair": (number, number + 0.5),
        }


def test_a_batch_is_a_tree():
    loader = StreamDataLoader(StreamDataset([0, 1], chunks_of, 2))
    one, two = itertools.islice(iter(loader), 2)
    leaves, spec = pytree.tree_flatten(one)
    assert spec == pytree.tree_structure(two)
    back = pytree.tree_unflatten(leaves, spec)
    assert isinstance(back, StreamBatch) and back.place is one.place and back.data["x"] is one.data["x"]
    doubled = pytree.tree_map_only(torch.Tensor, lambda x: x * 2, one)
    assert torch.equal(doubled.data["x"], 2 * one.data["x"]) and doubled.data["name"] == ["s0", "s1"]
    assert torch.equal(doubled.data["pair"][1], 2 * one.data["pair"][1])
    assert loader.state_dict(after=doubled) == loader.state_dict(after=one)
    summed = pytree.tree_map(lambda a, b: a + b if isinstance(a, torch.Tensor) else a, one, two)
    assert torch.equal(summed.data["x"], one.data["x"] + two.data["x"])
    moved = one.to("meta")
    assert {x.device.type for x in pytree.tree_leaves(moved) if isinstance(x, torch.Tensor)} == {"meta"}
    paths = [pytree.keystr(path) for path, _ in pytree.tree_flatten_with_path(one)[0]]
    assert ".data['x']" in paths and ".valid" in paths and not any("place" in path for path in paths)


# ---------------------------------------------------------------------- trainers


def numbers(lengths=None):
    dataset = StreamDataset([torch.arange(12.0)[None]], lambda signal: signal.split(1, 1), 1, lengths=lengths)
    return StreamDataLoader(dataset)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("lengths", [None, [12]])
@pytest.mark.parametrize("stop", [0, 4, 11])
def test_lightning_goes_on_with_the_next_batch(tmp_path, lengths, stop):
    lightning = pytest.importorskip("lightning")

    class Net(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))
            self.saw = []

        def training_step(self, batch, batch_idx):
            self.place = batch.place
            self.saw.append(int(batch.data[0, 0, 0]))
            return self.weight.sum()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

        def on_save_checkpoint(self, checkpoint):
            loops = checkpoint["loops"]["fit_loop"]["state_dict"]
            if "combined_loader" in loops:
                loops["combined_loader"] = [self.trainer.train_dataloader.state_dict(after=self.place)]

    class Save(lightning.Callback):
        def on_train_batch_end(self, trainer, net, outputs, batch, batch_idx):
            if batch_idx == stop and trainer.current_epoch == 0:
                trainer.save_checkpoint(tmp_path / "net.ckpt")

    options = {
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "default_root_dir": tmp_path,
        "max_epochs": 2,
    }
    first, second = Net(), Net()
    lightning.Trainer(callbacks=[Save()], **options).fit(first, numbers(lengths))
    assert first.saw == [*range(12)] * 2
    lightning.Trainer(**options).fit(second, numbers(lengths), ckpt_path=tmp_path / "net.ckpt", weights_only=True)
    assert second.saw == first.saw[stop + 1 :]


@pytest.mark.filterwarnings("ignore")
def test_accelerate_goes_on_with_the_next_batch(tmp_path):
    accelerate = pytest.importorskip("accelerate")

    def run(resume):
        accelerator = accelerate.Accelerator(cpu=True)
        loader = numbers()
        net = accelerator.prepare(nn.Linear(1, 1))
        assert accelerator.prepare(loader) is loader  # batches are moved by hand
        accelerator.register_for_checkpointing(loader)
        if resume:
            accelerator.load_state(tmp_path / "state")
        saw = []
        for number, batch in enumerate(loader):
            saw.append(int(batch.to(accelerator.device).data[0, 0, 0]))
            accelerator.backward(net(batch.data[..., 0]).sum())
            if number == 4 and not resume:
                accelerator.save_state(tmp_path / "state")
        return saw

    with torch.random.fork_rng(devices=[]):
        assert run(False) == [*range(12)]
        assert run(True) == [*range(5, 12)]
