"""The residual block: every layout of sub-layers and norms around a residual stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from corelm.kinds import Block, BlockParts, ComponentConfig, Connection, LayerContext, LayerStep, Norm

Layout = Literal["pre", "post", "branch-post", "sandwich", "parallel", "parallel-norms"]
Branch = Callable[[Tensor, LayerStep], Tensor]


class Residual(Block):
    """Sub-layers around one residual stream: pre, post, sandwich, parallel.

    One formula, for sub-layer j with branches b::

        h = N_pre(x)      R = x or h      x ← N_out(α R + β Σ_b N_post,b(f_b(N_b(h))))

    ``pre`` (Xiong et al., 2020, arXiv:2002.04745): N_pre. ``post`` (Vaswani et al., 2017, arXiv:1706.03762):
    N_out. ``branch-post`` (OLMo et al., 2024, arXiv:2501.00656): N_post. ``sandwich`` (Ding et al., 2021,
    arXiv:2105.13290): N_pre and N_post. ``parallel`` (Wang & Komatsuzaki, 2021,
    https://github.com/kingoflolz/mesh-transformer-jax): one sub-layer, whose two branches share N_pre;
    ``parallel-norms`` gives each its own. In the others attention and feed-forward are sub-layers of their own, in
    this order; a layer may have only one of them.
    """

    class Config(ComponentConfig):
        """Options."""

        layout: Layout = Field("pre", description="Which norms there are, and what runs side by side.")
        alpha: float = Field(1.0, description="Factor of what is carried on.")
        beta: float = Field(1.0, description="Factor of what is added.")
        carry: Literal["stream", "normed"] = Field(
            "stream", description="What is carried on: the stream, or what N_pre made of it."
        )
        dropout: float = Field(0.0, ge=0, lt=1, description="Probability of dropping a feature that is added.")

    def __init__(self, config: Any, layer: LayerContext, parts: BlockParts) -> None:
        super().__init__(config, layer, parts)
        self.attention = parts.attention
        self.feedforward = parts.feedforward
        self.connection = parts.connection
        branches = [name for name in ("attention", "feedforward") if getattr(parts, name) is not None]
        parallel = config.layout.startswith("parallel")
        subs = [branches] if parallel and branches else [[name] for name in branches]
        self.sub_layers = nn.ModuleDict(
            {"_".join(names): SubLayer(config, layer.dim, names, parts.norm) for names in subs}
        )

    def forward(self, streams: Tensor, step: LayerStep) -> Tensor:
        """Run the sub-layers."""
        for sub_layer in self.sub_layers.values():
            branches = {name: getattr(self, name) for name in sub_layer.branches}
            streams = sub_layer(streams, step, self.connection, branches)
        return streams


class SubLayer(nn.Module):
    """One update of the stream."""

    def __init__(self, config: Any, dim: int, branches: list[str], norm: Callable[[int], Norm]) -> None:
        super().__init__()
        self.config, self.branches = config, branches
        layout = config.layout
        pre = layout in ("pre", "sandwich", "parallel") or config.carry == "normed"
        self.pre_norm = norm(dim) if pre else None
        self.out_norm = norm(dim) if layout == "post" else None
        posts = branches if layout in ("branch-post", "sandwich") else []
        owns = branches if layout == "parallel-norms" else []
        self.branch_norms = nn.ModuleDict({name: norm(dim) for name in owns})
        self.post_norms = nn.ModuleDict({name: norm(dim) for name in posts})

    def forward(
        self, streams: Tensor, step: LayerStep, connection: Connection, branches: dict[str, Branch]
    ) -> Float[Tensor, "batch time dim"]:
        """Read, run the branches, write."""
        config = self.config
        x = connection.read(streams)
        h = x if self.pre_norm is None else self.pre_norm(x)
        added: Tensor | None = None
        for name, branch in branches.items():
            y = branch(self.branch_norms[name](h) if name in self.branch_norms else h, step)
            y = self.post_norms[name](y) if name in self.post_norms else y
            added = y if added is None else added + y
        assert added is not None
        if self.training:
            added = F.dropout(added, config.dropout)
        if config.beta != 1.0:
            added = added * config.beta
        keep = h if config.carry == "normed" else None
        if config.alpha != 1.0:
            keep = (x if keep is None else keep) * config.alpha
        streams = connection.write(streams, added, keep=keep)
        return streams if self.out_norm is None else self.out_norm(streams)
