"""Gated DeltaNet and Mamba-2 against their recurrences, written out token by token."""

import math

import pytest
import torch
import torch.nn.functional as F
from corelm_attention.gated_norm import GatedNorm
from hypothesis import given, settings
from hypothesis import strategies as st
from parts_helpers import EXACT, FakeSlot, Setting, build, layer, normal

from corelm.kinds import ModelContext, Spec, declared
from corelm.model.assemble import assemble, initialise
from corelm.model.config import ModelConfig

DELTA = {"use": "gated-delta", "heads": 4, "key_heads": 2, "key_dim": 4, "value_dim": 3}
MAMBA = {"use": "mamba2", "heads": 4, "groups": 2, "head_dim": 3, "state_size": 4}
MIXERS = pytest.mark.parametrize("options", [DELTA, MAMBA], ids=["gated-delta", "mamba2"])


def mixer(options, chunk=64, seed=0, **changes):
    return build("attention", {**options, "chunk": chunk, **changes}, layer(8), seed=seed)


@st.composite
def situations(draw, options):
    """A mixer in some surroundings, its input, and chunks that the results must not depend on."""
    seed, length = draw(st.integers(0, 999)), draw(st.integers(1, 13))
    changes = {"kernel": draw(st.sampled_from([1, 2, 4]))}
    if options is MAMBA:
        changes |= {"convolution_bias": draw(st.booleans()), "bias": draw(st.booleans())}
        changes |= draw(st.sampled_from([{}, {"least_step": 0.3, "most_step": 0.9}]))
    part = mixer(options, draw(st.integers(1, 6)), seed, **changes)
    generator = torch.Generator().manual_seed(seed)
    valid = torch.rand(2, length, generator=generator) > 0.3 if draw(st.booleans()) else None
    documents = (torch.rand(2, length, generator=generator) > 0.7).cumsum(1) if draw(st.booleans()) else None
    position = draw(st.sampled_from([[], ["rope"]]))
    return Setting(part, position, valid=valid, documents=documents), normal(2, length, 8, seed=seed)


def real_tokens(setting, row, time):
    """Real tokens of a row, and whether each begins a document."""
    current = None
    for t in range(time):
        if setting.valid is None or setting.valid[row, t]:
            document = 0 if setting.documents is None else int(setting.documents[row, t])
            yield t, document != current
            current = document


def convolution_oracle(setting, inputs):
    convolution = setting.part.convolution
    weight, mixed = convolution.weight[:, 0], torch.zeros_like(inputs)
    for row in range(len(inputs)):
        window = []
        for t, starts in real_tokens(setting, row, inputs.shape[1]):
            window = [*([] if starts else window), inputs[row, t]][-convolution.kernel :]
            total = sum(weight[:, -1 - age] * past for age, past in enumerate(reversed(window)))
            mixed[row, t] = F.silu(total if convolution.bias is None else total + convolution.bias)
    return mixed


def heads(x, count):
    return x.unflatten(-1, (count, -1)).transpose(1, 2)


def recurrence(setting, q, k, v, update):
    """States of every head along every row; outputs ``(batch, time, heads, value_dim)``."""
    batch, count, time, size = v.shape
    y = torch.zeros(batch, time, count, size, dtype=v.dtype)
    for row in range(batch):
        for h in range(count):
            group = h // (count // k.shape[1])
            for t, starts in real_tokens(setting, row, time):
                state = torch.zeros(k.shape[-1], size, dtype=v.dtype) if starts else state  # noqa: F821
                state = update(state, row, h, t, k[row, group, t], v[row, h, t])
                y[row, t, h] = state.T @ q[row, group, t]
    return y


def delta_oracle(setting, x):
    part, position = setting.part, setting.step(len(x), 0, x.shape[1]).position
    mixed = convolution_oracle(setting, torch.cat((part.query(x), part.key(x), part.value(x)), -1))
    keys = part.key_heads * part.key_dim
    q, k, v = mixed.split((keys, keys, part.heads * part.value_dim), -1)
    q, k = position.rotate(heads(q, part.key_heads), heads(k, part.key_heads))
    q, k = (t / (t.square().sum(-1, keepdim=True) + 1e-6).sqrt() for t in (q, k))
    a = torch.exp(-part.log_rate.exp() * F.softplus(part.decay(x) + part.step_bias))
    beta = torch.sigmoid(part.strength(x))

    def update(state, row, h, t, key, value):
        state = a[row, t, h] * state
        return state + beta[row, t, h] * torch.outer(key, value - state.T @ key)

    y = recurrence(setting, q / part.key_dim**0.5, k, heads(v, part.heads), update)
    normed = y / (y.square().mean(-1, keepdim=True) + part.config.eps).sqrt() * part.norm.weight
    return part.output(normed.flatten(2) * F.silu(part.gate(x)))


def mamba_oracle(setting, x):
    part, position = setting.part, setting.step(len(x), 0, x.shape[1]).position
    mixed = convolution_oracle(setting, torch.cat((part.value(x), part.key(x), part.query(x)), -1))
    v, k, q = mixed.split((part.width, part.keys, part.keys), -1)
    q, k = position.rotate(heads(q, part.groups), heads(k, part.groups))
    v, most = heads(v, part.heads), part.config.most_step or math.inf
    step = F.softplus(part.time_step(x) + part.step_bias).clamp(part.config.least_step, most)
    a = torch.exp(-part.log_rate.exp() * step)

    def update(state, row, h, t, key, value):
        return a[row, t, h] * state + torch.outer(key, step[row, t, h] * value)

    y = recurrence(setting, q, k, v, update) + part.skip[:, None] * v.transpose(1, 2)
    y = (y.flatten(2) * F.silu(part.gate(x))).unflatten(-1, (part.groups, -1))
    normed = (y / (y.square().mean(-1, keepdim=True) + part.config.eps).sqrt()).flatten(2)
    return part.output(normed * part.norm.weight)


ORACLES = {"gated-delta": delta_oracle, "mamba2": mamba_oracle}


def real(setting, y):
    """Outputs at real tokens; at padding the contract only says finite."""
    assert y.isfinite().all()
    return y if setting.valid is None else y[setting.valid]


@MIXERS
@settings(max_examples=40)
@given(data=st.data())
def test_the_parallel_form_is_the_recurrence(options, data):
    setting, x = data.draw(situations(options))
    with torch.no_grad():
        expected = real(setting, ORACLES[options["use"]](setting, x))
        torch.testing.assert_close(real(setting, setting.run(x)), expected, **EXACT)


@MIXERS
@settings(max_examples=40)
@given(data=st.data())
def test_any_split_into_cached_calls_gives_the_whole(options, data):
    setting, x = data.draw(situations(options))
    splits, left = [], x.shape[1]
    while left:
        splits.append(data.draw(st.integers(1, min(5, left)), label="length"))
        left -= splits[-1]
    with torch.no_grad():
        whole = real(setting, setting.run(x))
        torch.testing.assert_close(real(setting, setting.cached(x, splits)), whole, **EXACT)
        torch.testing.assert_close(real(setting, setting.cached(x, [1] * x.shape[1])), whole, **EXACT)


@MIXERS
@settings(max_examples=8)
@given(seed=st.integers(0, 99), chunks=st.lists(st.integers(1, 40), min_size=2, max_size=3))
def test_the_chunk_changes_nothing_not_even_gradients(options, seed, chunks):
    x, results = normal(2, 37, 8, seed=seed), []
    documents = (torch.arange(37) // 9).expand(2, -1)
    for chunk in chunks:
        part, leaf = mixer(options, chunk, seed), x.clone().requires_grad_()
        y = Setting(part, ["rope"], documents=documents).run(leaf)
        y.square().sum().backward()
        results.append([y.detach(), leaf.grad, *(p.grad for p in part.parameters())])
    for other in results[1:]:
        for found, expected in zip(other, results[0], strict=True):
            torch.testing.assert_close(found, expected, atol=1e-8, rtol=1e-8)


@MIXERS
@pytest.mark.parametrize("time", [1, 5])
def test_gradients_are_right(options, time):
    part = mixer(options, chunk=2)
    documents, valid = torch.tensor([[0, 0, 0, 1, 1]]), torch.tensor([[1, 0, 1, 1, 1]], dtype=torch.bool)
    setting = Setting(part, documents=documents[:, :time], valid=valid[:, :time])
    parameters = list(part.parameters())

    def run(x, *values):
        names = [name for name, _ in part.named_parameters()]
        arguments = (x, setting.step(1, 0, time))
        return torch.func.functional_call(part, dict(zip(names, values, strict=True)), arguments)

    inputs = (normal(1, time, 8).requires_grad_(), *parameters)
    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)


@MIXERS
def test_gradients_reach_through_the_state(options):
    part, x = mixer(options, chunk=3), normal(1, 8, 8)
    setting, leaves, grads = Setting(part), [], []
    for splits in ([8], [3, 1, 4]):
        leaves.append(x.clone().requires_grad_())
        setting.cached(leaves[-1], splits).square().sum().backward()
        grads.append(leaves[-1].grad)
    torch.testing.assert_close(grads[0], grads[1], **EXACT)


@MIXERS
def test_the_future_is_never_seen(options):
    setting = Setting(mixer(options, 3), ["rope"])
    jacobian = torch.autograd.functional.jacobian(setting.run, normal(1, 7, 8))
    for t in range(7):
        for s in range(7):
            assert bool(jacobian[0, t, :, 0, s].abs().max() > 1e-12) == (s <= t), (t, s)


@MIXERS
def test_padding_changes_nothing_wherever_it_is(options):
    part = mixer(options, 4)
    x, pad = normal(1, 6, 8), 100 * normal(1, 3, 8, seed=1)
    alone = Setting(part, ["rope"]).run(x)
    valid = torch.tensor([[0, 0, 0, 1, 1, 0, 0, 0, 1, 1, 1, 1]], dtype=torch.bool)
    row = torch.cat((pad, x[:, :2], pad, x[:, 2:]), 1)
    setting = Setting(part, ["rope"], valid=valid)
    for y in (setting.run(row), setting.cached(row, [2, 5, 1, 4]), setting.cached(row, [1] * 12)):
        torch.testing.assert_close(y[valid], alone[0], **EXACT)


@MIXERS
def test_documents_start_from_zero_inside_chunks_and_across_calls(options):
    part = mixer(options, 4)
    pieces = [normal(1, n, 8, seed=n) for n in (3, 1, 5, 2)]
    documents = torch.repeat_interleave(torch.arange(4), torch.tensor([3, 1, 5, 2]))[None]
    alone = torch.cat([Setting(part, ["rope"]).run(piece) for piece in pieces], 1)
    setting, row = Setting(part, ["rope"], documents=documents), torch.cat(pieces, 1)
    for y in (setting.run(row), setting.cached(row, [1] * 11), setting.cached(row, [2, 2, 6, 1])):
        torch.testing.assert_close(y, alone, **EXACT)
    together = Setting(part, ["rope"], ["causal"], documents=documents)
    assert not torch.allclose(together.run(row), alone)


@MIXERS
def test_a_document_goes_on_after_padding_that_belongs_to_none(options):
    part, x, pad = mixer(options, 4), normal(1, 6, 8), normal(1, 2, 8, seed=1)
    documents = torch.tensor([[-1, -1, 0, 0, -1, -1, 0, 1, 1, 1]])
    row = torch.cat((pad, x[:, :2], pad, x[:, 2:]), 1)
    setting = Setting(part, ["rope"], valid=documents >= 0, documents=documents)
    alone = torch.cat([Setting(part, ["rope"]).run(piece) for piece in (x[:, :3], x[:, 3:])], 1)
    for y in (setting.run(row), setting.cached(row, [3, 2, 1, 1, 3]), setting.cached(row, [1] * 10)):
        torch.testing.assert_close(y[documents >= 0], alone[0], **EXACT)


@MIXERS
def test_the_window_holds_the_last_inputs_of_the_document(options):
    part, x = mixer(options, kernel=4), normal(1, 7, 8)
    documents = torch.tensor([[0, 0, 0, 1, 1, 1, 1]])
    valid = torch.tensor([[1, 1, 1, 1, 0, 1, 0]], dtype=torch.bool)
    setting = Setting(part, documents=documents, valid=valid)
    slots = {name: FakeSlot(spec) for name, spec in part.slots(None).items()}
    part(x, setting.step(1, 0, 7, slots))
    names = ("query", "key", "value") if options is DELTA else ("value", "key", "query")
    inputs = torch.cat([getattr(part, name)(x) for name in names], -1)
    expected = torch.stack((torch.zeros_like(inputs[0, 0]), inputs[0, 3], inputs[0, 5]))[None]
    torch.testing.assert_close(slots["convolution"].view().tensors["convolution"], expected, **EXACT)


@MIXERS
@pytest.mark.parametrize("rate", [-12.0, 0.0, 6.0])
def test_weak_and_strong_decays_keep_their_digits_over_long_rows(options, rate):
    part = mixer(options)
    with torch.no_grad():
        part.log_rate.fill_(rate)
        part.log_rate[0] = -rate
    setting, x = Setting(part), normal(1, 400, 8)
    with torch.no_grad():
        exact = setting.cached(x, [1] * 400)
        torch.testing.assert_close(setting.run(x), exact, atol=1e-9, rtol=1e-9)
        part.float()
        torch.testing.assert_close(setting.run(x.float()).double(), exact, atol=1e-4, rtol=1e-3)
    part.zero_grad()
    setting.run(x.float()).sum().backward()
    assert all(p.grad.isfinite().all() for p in part.parameters())


def test_equal_keys_that_replace_all_of_their_value_are_solved_exactly():
    part = mixer(DELTA, kernel=1)
    with torch.no_grad():
        part.log_rate.fill_(-20.0)
        part.strength.weight.mul_(100)
    x = normal(1, 1, 8).expand(1, 200, 8)
    with torch.no_grad():
        exact = delta_oracle(Setting(part), x)
        torch.testing.assert_close(Setting(part).run(x), exact, **EXACT)
        torch.testing.assert_close(Setting(part.float()).run(x.float()).double(), exact, atol=1e-4, rtol=1e-3)


@MIXERS
def test_bfloat16_and_autocast_are_near_float64(options):
    part = mixer(options, 4)
    setting, x = Setting(part, ["rope"]), normal(2, 16, 8)
    exact = setting.run(x).detach()
    part.float()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        cast = setting.run(x.float())
    part.bfloat16()
    with torch.no_grad():
        narrow = setting.run(x.bfloat16())
    assert narrow.dtype == torch.bfloat16
    for y in (cast, narrow):
        assert float((y.double() - exact).norm() / exact.norm()) < 0.05


@pytest.mark.parametrize("gate_first", [False, True])
def test_the_gate_comes_before_or_after_the_norm_of_each_group(gate_first):
    norm = GatedNorm(6, eps=1e-2, gate_first=gate_first, groups=2).double()
    y, z, weight = normal(5, 6), normal(5, 6, seed=1), normal(6, seed=2)
    with torch.no_grad():
        norm.weight.copy_(weight)
    gate = z * torch.sigmoid(z)
    inside = (y * gate if gate_first else y).view(5, 2, 3)
    normed = (inside / (inside.square().mean(-1, keepdim=True) + 1e-2).sqrt()).view(5, 6) * weight
    torch.testing.assert_close(norm(y, z), normed if gate_first else normed * gate, **EXACT)


@pytest.mark.parametrize("limits", [{}, {"least_step": 0.05}, {"most_step": 0.01}, {"least_step": 3.0}])
def test_heads_begin_with_memories_of_many_lengths(limits):
    part = Spec.read("attention", {**MAMBA, "heads": 32, **limits}).build(layer(8))
    least, most = limits.get("least_step", 0.001), limits.get("most_step", 0.1)
    steps, rates = F.softplus(part.step_bias.detach()), part.log_rate.detach().exp()
    assert steps.min() >= least - 1e-6
    assert steps.max() <= max(most, least) + 1e-6
    assert rates.min() >= 1
    assert rates.max() <= 16
    if not limits:
        assert steps.max() / steps.min() > 50
        assert abs(float(torch.corrcoef(torch.stack((steps.log(), rates)))[0, 1])) < 0.3


def test_values_per_head_are_drawn_by_nobody():
    section = {"dim": 8, "layers": 1, "context": 16, "attention": {**MAMBA, "heads": 8}}
    model = assemble(ModelConfig.model_validate(section), 30)
    initialise(model, 0)
    infos = {name: (parameter, info) for name, parameter, info in declared(model)}
    for end in ("step_bias", "log_rate"):
        ((parameter, info),) = [found for name, found in infos.items() if name.endswith(end)]
        torch.testing.assert_close(parameter.detach(), torch.tensor(info.constant))


@MIXERS
def test_a_model_of_layers_without_feed_forward_runs(options):
    section = {"dim": 8, "layers": 2, "context": 16, "attention": options, "feedforward": None}
    model = assemble(ModelConfig.model_validate(section), 30, dtype=torch.float64)
    initialise(model, 0)
    names = {name for name, _ in model.named_parameters()}
    assert not any("feedforward" in name for name in names)
    assert any("sub_layers.attention.pre_norm" in name for name in names)
    ids = torch.randint(30, (2, 9))
    with torch.no_grad():
        torch.testing.assert_close(model.logits(ids, cached=True), model.logits(ids), **EXACT)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"use": "gated-delta", "heads": 4, "key_heads": 3, "key_dim": 2}, "key-heads-do-not-divide-heads"),
        ({"use": "gated-delta", "heads": 3}, "heads-do-not-divide-dim"),
        ({"use": "mamba2", "heads": 4, "groups": 3}, "groups-do-not-divide-heads"),
        ({"use": "mamba2", "heads": 3}, "heads-do-not-divide-dim"),
        ({"use": "mamba2", "heads": 4, "least_step": 0.2, "most_step": 0.1}, "no-room-for-steps"),
    ],
)
def test_impossible_sizes_are_refused(options, code):
    spec = Spec.read("attention", options)
    (problem,) = spec.part.check(spec.config, ModelContext(16, 1, 8, 0))
    assert problem.code == code
    assert problem.remedy
