"""The refusals of ``tune``: each is one error class, so that a caller can tell them apart by name."""

from stanch.errors import Conflict, ExternalError, GateFailed, InvalidInput, Rollback, VerificationError


class DeltaTooLarge(InvalidInput):
    """Delta is not below 1/N: publishing one whole unit at random would satisfy such a guarantee."""


class PlanInfeasible(InvalidInput):
    """No sound privacy plan exists for these numbers."""


class PlanChanged(InvalidInput):
    """A run is resumed with another plan, data set, unit table or set of trainable parameters."""


class RunExists(InvalidInput):
    """The output or an unfinished run lies where this run would write."""


class PrivacySpent(InvalidInput):
    """The weights that a private run starts with have learned already, in no run that it counts."""


class ProgressLost(InvalidInput):
    """A run has charged steps, and no checkpoint holds what they taught."""


class UnsupportedModule(InvalidInput):
    """The model has a part for which the engine has no exact per-unit gradient or loss."""


class UncoveredParameter(VerificationError):
    """Captured, trainable and optimised parameters are not the same objects."""


class SelfCheckFailed(VerificationError):
    """The trained adapter is not what was trained: it did not move, or its file does not give the same loss."""


class GuaranteeVoid(VerificationError):
    """The run's sample and noise came from a public seed, so it guarantees nothing."""


class BatchAxisLost(InvalidInput):
    """A module flattened or reordered the batch axis, so gradients cannot be told apart by unit."""


class BudgetBusy(Conflict):
    """Another process holds the budget journal."""


class BudgetExhausted(GateFailed):
    """Every planned step is charged; one more would exceed the planned epsilon."""


class BudgetRolledBack(Rollback):
    """The budget journal is missing, shorter than, or different from what was seen before."""


class AccountantDisagrees(VerificationError):
    """Two independent accountants contradict each other; no epsilon is stated."""


class CheckpointNotSealable(InvalidInput):
    """Sealed checkpoints were asked for without a key that signs them."""


class UnsupportedParallelism(InvalidInput):
    """The processes share the model in a way for which no test shows that clipping and noise are right."""


class RanksDiverged(VerificationError):
    """The processes of one run do not agree on the plan or the weights."""


class RankLost(ExternalError):
    """A process of the run is gone; the step was not taken."""


class UnsafeArgument(InvalidInput):
    """A trainer's argument would break the guarantee, or is not known to keep it."""


class CanariesMissing(InvalidInput):
    """The rows that are tuned on do not hold the canaries as planned."""
