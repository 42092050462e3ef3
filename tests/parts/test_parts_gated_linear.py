import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parts_helpers import EXACT, FakeSlot, Setting, build, layer, normal

from corelm.kinds import ModelContext, Spec


def mixer(chunk=64, seed=0, **options):
    config = {"use": "gated-linear", "heads": 2, "chunk": chunk, "head_dim": 4, **options}
    return build("attention", config, layer(8), seed=seed)


@st.composite
def situations(draw):
    """A mixer in some surroundings, its input, and chunks that the results must not depend on."""
    seed, length = draw(st.integers(0, 999)), draw(st.integers(1, 13))
    part = mixer(draw(st.integers(1, 6)), seed, temperature=draw(st.sampled_from([0.01, 1.0, 16.0])))
    generator = torch.Generator().manual_seed(seed)
    valid = torch.rand(2, length, generator=generator) > 0.3 if draw(st.booleans()) else None
    documents = (torch.rand(2, length, generator=generator) > 0.7).cumsum(1) if draw(st.booleans()) else None
    position = draw(st.sampled_from([[], ["rope"]]))
    return Setting(part, position, valid=valid, documents=documents), normal(2, length, 8, seed=seed)


def loop_oracle(setting, x):
    """The recurrence as the class states it, token by token."""
    part, (batch, time, _) = setting.part, x.shape
    split = lambda t: t.unflatten(-1, (part.heads, part.head_dim))  # noqa: E731
    step = setting.step(batch, 0, time)
    q, k = step.position.rotate(split(part.query(x)).transpose(1, 2), split(part.key(x)).transpose(1, 2))
    v, a = split(part.value(x)), torch.sigmoid(part.decay(x)) ** (1 / part.config.temperature)
    mixed = torch.zeros(batch, time, part.heads, part.head_dim, dtype=x.dtype)
    for b in range(batch):
        for h in range(part.heads):
            state, current = torch.zeros(part.head_dim, part.head_dim, dtype=x.dtype), None
            for t in range(time):
                if setting.valid is None or setting.valid[b, t]:
                    document = 0 if setting.documents is None else int(setting.documents[b, t])
                    if document != current:
                        state, current = torch.zeros_like(state), document
                    state = a[b, t, h] * state + torch.outer(k[b, h, t], v[b, t, h])
                mixed[b, t, h] = state.T @ q[b, h, t] / part.head_dim**0.5
    return part.output(part.norm(mixed).flatten(2) * torch.nn.functional.silu(part.gate(x)))


def real(setting, y):
    """Outputs at real tokens; at padding the contract only says finite."""
    assert y.isfinite().all()
    return y if setting.valid is None else y[setting.valid]


@settings(max_examples=60, deadline=None)
@given(situations())
def test_the_parallel_form_is_the_recurrence(situation):
    setting, x = situation
    with torch.no_grad():
        torch.testing.assert_close(real(setting, setting.run(x)), real(setting, loop_oracle(setting, x)), **EXACT)


@settings(max_examples=60, deadline=None)
@given(situations(), st.data())
def test_any_split_into_cached_calls_gives_the_whole(situation, data):
    setting, x = situation
    splits, left = [], x.shape[1]
    while left:
        splits.append(data.draw(st.integers(1, min(5, left)), label="length"))
        left -= splits[-1]
    with torch.no_grad():
        whole = real(setting, setting.run(x))
        torch.testing.assert_close(real(setting, setting.cached(x, splits)), whole, **EXACT)
        torch.testing.assert_close(real(setting, setting.cached(x, [1] * x.shape[1])), whole, **EXACT)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 99), st.lists(st.integers(1, 40), min_size=2, max_size=4))
def test_the_chunk_changes_nothing_not_even_gradients(seed, chunks):
    x, results = normal(2, 37, 8, seed=seed), []
    for chunk in chunks:
        part = mixer(chunk, seed)
        leaf = x.clone().requires_grad_()
        y = Setting(part, ["rope"]).run(leaf)
        y.square().sum().backward()
        results.append((y.detach(), leaf.grad, part.decay.weight.grad))
    for other in results[1:]:
        for found, expected in zip(other, results[0], strict=True):
            torch.testing.assert_close(found, expected, atol=1e-8, rtol=1e-8)


def test_padding_neither_writes_nor_decays():
    part = mixer(4)
    x, pad = normal(1, 6, 8), 100 * normal(1, 3, 8, seed=1)
    alone = Setting(part, ["rope"]).run(x)
    valid = torch.tensor([[0, 0, 0, 1, 1, 0, 0, 0, 1, 1, 1, 1]], dtype=torch.bool)
    row = torch.cat((pad, x[:, :2], pad, x[:, 2:]), 1)
    for y in (
        Setting(part, ["rope"], valid=valid).run(row),
        Setting(part, ["rope"], valid=valid).cached(row, [2, 5, 1, 4]),
    ):
        torch.testing.assert_close(y[valid], alone[0], **EXACT)


def test_a_document_goes_on_after_padding_that_belongs_to_none():
    part, x, pad = mixer(4), normal(1, 6, 8), normal(1, 2, 8, seed=1)
    documents = torch.tensor([[-1, -1, 0, 0, -1, -1, 0, 1, 1, 1]])
    row = torch.cat((pad, x[:, :2], pad, x[:, 2:]), 1)
    setting = Setting(part, ["rope"], valid=documents >= 0, documents=documents)
    alone = torch.cat([Setting(part, ["rope"]).run(piece) for piece in (x[:, :3], x[:, 3:])], 1)
    for y in (setting.run(row), setting.cached(row, [3, 2, 1, 1, 3])):
        torch.testing.assert_close(y[documents >= 0], alone[0], **EXACT)


def test_documents_start_from_zero_inside_chunks_and_across_calls():
    part = mixer(4)
    pieces = [normal(1, n, 8, seed=n) for n in (3, 1, 5, 2)]
    documents = torch.repeat_interleave(torch.arange(4), torch.tensor([3, 1, 5, 2]))[None]
    alone = torch.cat([Setting(part, ["rope"]).run(piece) for piece in pieces], 1)
    setting, row = Setting(part, ["rope"], documents=documents), torch.cat(pieces, 1)
    for y in (setting.run(row), setting.cached(row, [1] * 11), setting.cached(row, [2, 2, 6, 1])):
        torch.testing.assert_close(y, alone, **EXACT)
    together = Setting(part, ["rope"], ["causal"], documents=documents)
    assert not torch.allclose(together.run(row), alone)


def test_strong_and_weak_decays_side_by_side_keep_their_digits():
    part = mixer(64, temperature=1e-3)
    with torch.no_grad():
        part.decay.weight.mul_(30)
    setting, x = Setting(part), normal(1, 200, 8)
    with torch.no_grad():
        exact = loop_oracle(setting, x)
        torch.testing.assert_close(setting.run(x), exact, **EXACT)
        part.float()
        y = setting.run(x.float())
    assert y.isfinite().all()
    torch.testing.assert_close(y.double(), exact, atol=1e-4, rtol=1e-4)


def test_long_rows_keep_their_digits_in_float32():
    part = mixer(32, temperature=1.0)
    setting, x = Setting(part), normal(1, 1500, 8)
    with torch.no_grad():
        exact = setting.run(x)
        part.float()
        torch.testing.assert_close(setting.run(x.float()).double(), exact, atol=2e-5, rtol=1e-4)


def test_strong_decay_has_finite_gradients():
    part = mixer(8, temperature=1e-6)
    x = normal(2, 20, 8).requires_grad_()
    Setting(part).run(x).sum().backward()
    assert x.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in part.parameters())


def test_gradients_are_right():
    part = build("attention", {"use": "gated-linear", "heads": 1, "head_dim": 2, "chunk": 2}, layer(3))
    setting = Setting(part, documents=torch.tensor([[0, 0, 1, 1, 1]]))
    assert torch.autograd.gradcheck(setting.run, (normal(1, 5, 3).requires_grad_(),))


def test_the_future_is_never_seen():
    part = mixer(3)
    setting = Setting(part, ["rope"])
    jacobian = torch.autograd.functional.jacobian(setting.run, normal(1, 7, 8))
    for t in range(7):
        for s in range(7):
            assert bool(jacobian[0, t, :, 0, s].abs().max() > 1e-12) == (s <= t), (t, s)


def test_the_state_has_one_size_and_is_wide_in_low_precision():
    part = mixer()
    (spec,) = part.slots(None).values()
    assert (dict(spec.fields), spec.grows) == ({"state": (2, 4, 4)}, False)
    assert "recurrent" in part.offers(part.config)
    part.bfloat16()
    setting, slots = Setting(part, ["rope"]), {"state": FakeSlot(spec)}
    x = normal(3, 5, 8).bfloat16()
    assert part(x, setting.step(3, 0, 5, slots)).dtype == torch.bfloat16
    assert slots["state"].view().tensors["state"].dtype == torch.float32
    assert slots["state"].view().tensors["state"].shape == (3, 2, 4, 4)


def test_bfloat16_autocast_is_near_float64():
    part = mixer(4)
    setting, x = Setting(part, ["rope"]), normal(2, 16, 8)
    exact = setting.run(x).detach()
    part.float()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        y = setting.run(x.float())
    assert float((y.double() - exact).abs().max()) < 0.05 * float(exact.abs().max())


def test_impossible_heads_are_refused():
    spec = Spec.read("attention", {"use": "gated-linear", "heads": 3})
    (problem,) = spec.part.check(spec.config, ModelContext(16, 1, 8, 0))
    assert problem.code == "heads-do-not-divide-dim"
