"""What the models of an alignment must have in common."""

from __future__ import annotations

from corelm.errors import UserError
from corelm.kinds import AlignmentJob, LanguageModel, ModelRole


def take_models(job: AlignmentJob, *frozen: ModelRole) -> tuple[LanguageModel, ...]:
    """The policy and the frozen models, those in evaluation mode.

    Raises:
        UserError: two models have different vocabularies; token ids pass between them.
        ValueError: a frozen model is the policy itself.
    """
    policy = job.models["policy"]
    for role in frozen:
        model = job.models[role]
        if model.module is policy.module:
            raise ValueError(f"the {role} model is the policy itself and would be trained; open it a second time")
        if model.vocab_size != policy.vocab_size or model.tokenizer.specials != policy.tokenizer.specials:
            raise UserError(
                f"the {role} model has another vocabulary ({model.vocab_size} tokens) than the policy "
                f"({policy.vocab_size})",
                remedy="All models of an alignment must descend from the same tokenizer.",
                code="other-vocabulary",
            )
        model.module.eval()
    return (policy, *(job.models[role] for role in frozen))
