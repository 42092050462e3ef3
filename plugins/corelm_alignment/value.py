"""A policy with a value head on the same body."""

from __future__ import annotations

from typing import Any

from torch import nn

from corelm.kinds import Head, LanguageModel, Spec


class PolicyWithValue(nn.Module):
    """A language model whose hidden states are also read by a value head.

    It is the policy in every respect (``hidden``, ``head``, ``tokenizer`` … are the policy's) and has the
    value head's parameters besides. All parameters keep their names; the value head's are ``value_head.…``.
    The policy itself is untouched and can be saved without the value head.
    """

    def __init__(self, policy: LanguageModel, head: Spec[Head], seed: int) -> None:
        super().__init__()
        # The policy's children become this module's: registering the policy itself would rename its parameters.
        for name, child in policy.module.named_children():
            self.add_module(name, child)
        self.__dict__["policy"] = policy
        self.value_head: Head = policy.with_head(head, seed).head.to(policy.device)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if "policy" not in self.__dict__:
                raise
            return getattr(self.__dict__["policy"], name)

    @property
    def module(self) -> nn.Module:
        """This module, which has the parameters of both heads."""
        return self

    def train(self, mode: bool = True) -> PolicyWithValue:
        """Set the mode of the policy and of both heads."""
        super().train(mode)
        self.__dict__["policy"].module.train(mode)
        return self
