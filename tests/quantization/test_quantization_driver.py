"""Quantizing a whole model, on a small stand-in whose every step can be followed."""

import copy

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load, save
from torch import nn

from corelm.errors import Interrupted, UserError
from corelm.kinds import Batch, Block, Linear, Quantizer, Spec
from corelm.kinds.quantized_linear import QuantizedLinear
from corelm.kinds.quantizing import chosen, quantize_model, rebuild, update


class StandInBlock(Block):
    """Two maps, the second behind a nonlinearity."""

    def __init__(self, dim, width):
        nn.Module.__init__(self)
        self.up, self.down = Linear(dim, width, bias=True), Linear(width, dim, residual=True)
        self.router = Linear(dim, 2, role="router")

    def forward(self, streams, step=None):
        self.router(streams)
        return streams + self.down(F.silu(self.up(streams)))


class StandInHead(nn.Module):
    def __init__(self, dim, vocab_size):
        super().__init__()
        self.reads, self.map = "vocabulary", Linear(dim, vocab_size, role="head")

    def forward(self, hidden):
        return self.map(hidden)


class StandIn(nn.Module):
    """What the driver sees of a language model."""

    def __init__(self, depth=2, dim=32, width=48, vocab_size=50):
        super().__init__()
        self.table = nn.Parameter(torch.empty(vocab_size, dim))
        self.layers = nn.ModuleList(StandInBlock(dim, width) for _ in range(depth))
        self.head = StandInHead(dim, vocab_size)
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) / parameter.shape[-1] ** 0.5
        self.eval()

    module = property(lambda self: self)
    device = property(lambda self: self.table.device)

    def hidden(self, ids, *, valid=None, documents=None):
        x = F.embedding(ids, self.table)
        for layer in self.layers:
            x = layer(x)
        return x


class Silent:
    stopping = False

    def __init__(self):
        self.notes, self.steps = [], []

    def note(self, message):
        self.notes.append(message)

    def step(self, step, total, figures):
        self.steps.append((step, total, figures))


def batches(count=3, seed=1, padded=False):
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(count):
        ids = torch.randint(0, 50, (4, 16), generator=generator)
        valid = torch.arange(16) < torch.randint(4, 17, (4, 1), generator=generator) if padded else None
        made.append(Batch(ids, ids, valid=valid))
    return made


def spec(use="gptq", **options):
    return Spec.read("quantizer", {"use": use, **options})


MAPS = ["layers.0.up", "layers.0.down", "layers.1.up", "layers.1.down"]


def quantized(model=None, part=None, data=None, **more):
    model = model or StandIn()
    done = quantize_model(
        model, part or spec(group=16), calibration=batches() if data is None else data, watch=Silent(), **more
    )
    return model, done


def test_every_matrix_inside_blocks_is_replaced_and_nothing_else():
    model, done = quantized()
    assert sorted(done.record["modules"]) == sorted(MAPS)
    assert {name for name, module in model.named_modules() if isinstance(module, QuantizedLinear)} == set(MAPS)
    assert done.record["quantizer"]["use"] == "gptq"


def test_the_record_rebuilds_the_model_and_the_tensors_fill_it():
    model, done = quantized()
    fresh = StandIn()
    rebuild(fresh, done.record)
    fresh.load_state_dict(load(save(model.state_dict())), strict=True)
    ids = batches(1, seed=9)[0].ids
    assert torch.equal(fresh.hidden(ids), model.hidden(ids))


def test_the_record_is_plain_data():
    import json

    _, done = quantized()
    assert json.loads(json.dumps(done.record)) == done.record


def test_a_quantized_model_computes_what_one_with_the_dequantized_weights_does():
    model, _ = quantized()
    plain = StandIn()
    for name in MAPS:
        plain.get_submodule(name).weight.data = model.get_submodule(name).canonical().dequantize()
    ids = batches(1, seed=9)[0].ids
    assert torch.equal(plain.hidden(ids), model.hidden(ids))


def expected_statistics(model, name, data):
    """Statistics of one map's input, straight from the definition."""
    rows = []
    handle = model.get_submodule(name).register_forward_pre_hook(lambda _, args: rows.append(args[0]))
    with torch.no_grad():
        for batch in data:
            model.hidden(batch.ids)
    handle.remove()
    kept = [
        x[batch.valid] if batch.valid is not None else x.flatten(0, 1) for x, batch in zip(rows, data, strict=True)
    ]
    x = torch.cat(kept).double()
    return 2 * x.T @ x / len(x), len(x)


class Spy(Quantizer):
    """Rounds, and remembers the statistics that it was given."""

    calibrated = True

    def __init__(self, config):
        self.config, self.seen = config, []

    def refuses(self, outputs, inputs):
        return "too wide" if inputs > 1000 else None

    def quantize(self, weight, statistics=None):
        self.seen.append(statistics)
        return spec("round-to-nearest", bits=2).build().quantize(weight)


class SpySpec:
    """A spec that builds the same spy every time."""

    name = "spy"

    def __init__(self):
        self.spy = Spy(None)

    def build(self):
        return self.spy

    def dump(self):
        return {"use": "spy"}


@pytest.mark.parametrize("padded", [False, True])
def test_statistics_come_from_real_tokens_behind_layers_that_are_quantized_already(padded):
    data, part = batches(padded=padded), SpySpec()
    model, _ = quantized(part=part, data=data)
    reference = StandIn()
    for layer in (0, 1):
        names = [f"layers.{layer}.up", f"layers.{layer}.down"]
        for name in names:
            hessian, tokens = expected_statistics(reference, name, data)
            seen = part.spy.seen[MAPS.index(name)]
            assert seen.tokens == tokens
            torch.testing.assert_close(seen.hessian.double(), hessian, rtol=1e-4, atol=1e-5)
        for name in names:  # the next layer is calibrated with what the quantized one yields
            reference.get_submodule(name).weight.data = model.get_submodule(name).canonical().dequantize()


def test_the_order_of_calibration_samples_does_not_matter():
    data = batches(6)
    _, one = model_one = quantized(StandIn().double(), data=data)
    model_two = quantized(StandIn().double(), data=data[::-1])
    for name in MAPS:
        a, b = (model.get_submodule(name).canonical() for model in (model_one[0], model_two[0]))
        assert torch.equal(a.codes, b.codes)
    assert one.errors == pytest.approx(model_two[1].errors)


def test_statistics_are_a_running_mean_however_they_are_cut():
    x = torch.randn(50, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    cut = None
    for piece in (x[:7], x[7:7], x[7:40], x[40:]):
        cut = update(cut, piece)
    assert cut.tokens == 50
    torch.testing.assert_close(cut.hessian, 2 * x.T @ x / 50)


def test_figures_say_what_it_cost():
    _, done = quantized(part=spec(group=16, bits=4))
    figures = done.figures
    assert figures["maps"] == 4
    assert figures["bits_per_weight"] == pytest.approx(4 + 32 / 16)
    assert figures["bytes_before"] == 4 * 2 * 2 * 32 * 48
    assert figures["bytes_after"] == pytest.approx(figures["bytes_before"] * 6 / 32)
    assert 0 < figures["mean_relative_error"] <= figures["worst_relative_error"] < 0.2
    assert figures["kl"] > 0
    assert 0 < figures["same_top_1"] <= 1
    finer = quantized(part=spec(group=16, bits=8))[1].figures
    assert finer["kl"] < figures["kl"] / 20
    assert finer["same_top_1"] >= figures["same_top_1"]


def test_calibration_makes_the_outputs_better_than_rounding():
    calibrated = quantized(part=spec(bits=3, group=16))[1].figures
    rounded = quantized(part=spec("round-to-nearest", bits=3, group=16))[1].figures
    assert calibrated["kl"] < rounded["kl"]


def test_without_calibration_a_method_that_needs_it_says_so():
    with pytest.raises(UserError, match="gptq chooses codes by looking at data"):
        quantized(data=[])
    _, done = quantized(part=spec("round-to-nearest"), data=[])
    assert "kl" not in done.figures
    assert done.figures["bits_per_weight"] == pytest.approx(8 + 32 * (2 * 48 + 2 * 32) / (4 * 32 * 48))


def test_patterns_choose_and_skip():
    model = StandIn()
    assert [name for name, _ in chosen(model, ["*.up"])] == ["layers.0.up", "layers.1.up"]
    assert [name for name, _ in chosen(model, ["*.up"], ["layers.0.*"])] == ["layers.1.up"]
    assert [name for name, _ in chosen(model, ["head.map"])] == ["head.map"]
    assert [name for name, _ in chosen(model)] == MAPS
    _, done = quantized(targets=["head.map", "layers.1.*"], skip=["*.router"])
    assert sorted(done.errors) == ["head.map", "layers.1.down", "layers.1.up"]


@pytest.mark.parametrize("where", ["targets", "skip"])
def test_a_pattern_that_matches_nothing_is_an_error_with_near_names(where):
    with pytest.raises(UserError, match=r"'layers\.0\.upp' matches no linear map") as caught:
        quantized(**{where: ["layers.0.upp"]})
    assert "layers.0.up" in caught.value.remedy
    with pytest.raises(UserError, match="no linear map is left"):
        quantized(skip=["*"])


def test_a_refused_shape_is_named_before_anything_is_changed():
    model = StandIn(width=1200)
    with pytest.raises(UserError, match=r"spy can't quantize layers\.0\.down: too wide"):
        quantized(model, SpySpec())
    assert not any(isinstance(module, QuantizedLinear) for module in model.modules())


def test_weights_that_are_not_finite_are_reported_by_module():
    model = StandIn()
    model.layers[1].up.weight.data[3, 4] = float("nan")
    with pytest.raises(UserError, match=r"layers\.1\.up: .*output channel 3, input 4"):
        quantized(model, spec("round-to-nearest"))


def test_what_the_quantizer_has_to_tell_reaches_the_watch():
    model, watch = StandIn(), Silent()
    model.table.data.zero_()
    done = quantize_model(model, spec(group=16), calibration=batches(), watch=watch)
    assert done.notes["layers.0.up"] == "rounded to nearest: all its inputs were zero"
    assert "layers.0.up: rounded to nearest: all its inputs were zero" in watch.notes
    assert [step[:2] for step in watch.steps] == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_calibrating_a_layer_does_not_run_the_layers_behind_it():
    model, runs, part = StandIn(depth=3), [], SpySpec()
    for number, layer in enumerate(model.layers):
        layer.register_forward_hook(lambda *_, number=number: runs.append(number))
    quantized(model, part, data=batches(1))
    compared = [0, 1, 2]
    assert runs == [*compared, 0, 0, 1, 0, 1, 2, *compared]


def test_it_stops_when_asked():
    watch = Silent()
    watch.stopping = True
    with pytest.raises(Interrupted):
        quantize_model(StandIn(), spec(group=16), calibration=batches(), watch=watch)


def test_the_same_model_and_data_give_the_same_bits():
    one, two = quantized()[0], quantized()[0]
    assert save(one.state_dict()) == save(two.state_dict())


def test_no_hook_stays_behind_and_a_copy_is_independent():
    model, _ = quantized()
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())
    twin = copy.deepcopy(model)
    twin.layers[0].up.codes.zero_()
    assert not torch.equal(twin.layers[0].up.codes, model.layers[0].up.codes)
