"""The processes that train together, and what they do as one: sum, agree, keep their streams' positions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from corelm.errors import UserError
from corelm.kinds import BatchStream, Processes


class Alone(Processes):
    """One process, which trains where its model is; the sums of one are themselves."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def add(self, tensor: Tensor) -> Tensor:
        """The sum of every process's tensor, on all of them."""
        return tensor

    def add_gradients(self, parameters: list[torch.nn.Parameter]) -> None:
        """Replace every gradient by its sum over the processes; one that no process has stays None."""

    def wait(self) -> None:
        """Until every process is here."""


class RankedStream:
    """The streams of all processes as one member of the checkpoint.

    Each process draws from its own. Before saving, all of them ``collect`` the positions; loading takes one's own. A
    checkpoint of another number of processes is taken where the streams are elastic: then any of the positions says
    which batches are still to come, and the others know nothing else. Everything else in a checkpoint is the same in
    all processes already, and a micro-batch's random numbers depend on its place in the step alone.
    """

    def __init__(self, stream: BatchStream, processes: Alone) -> None:
        self.stream = stream
        self.processes = processes
        self.positions: list[dict[str, Any]] = []

    def collect(self) -> None:
        """Bring the positions of all streams together; every process calls it at the same time."""
        self.positions = self.processes.gather(self.stream.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """Positions of all streams, by rank, as they were collected last."""
        return {"ranks": self.positions}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from this process's position.

        Raises:
            UserError: the checkpoint is of another number of processes, and what their streams hold can't be shared anew.
        """
        ranks = state["ranks"]
        if len(ranks) == self.processes.world:
            self.stream.load_state_dict(ranks[self.processes.rank])
        elif getattr(self.stream, "elastic", False) and all(position == ranks[0] for position in ranks):
            self.stream.load_state_dict(ranks[0])
        else:
            raise UserError(
                f"the checkpoint was made by {len(ranks)} processes, this run has {self.processes.world}, and each of "
                "them holds data of its own",
                remedy=f"Start it with {len(ranks)} processes, or redo the stage.",
                code="processes-changed",
            )
