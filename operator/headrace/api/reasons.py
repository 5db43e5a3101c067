"""Condition types and every reason they can carry. A reason is a contract: programs match on it, documents list it."""

from __future__ import annotations

from enum import StrEnum


class ConditionType(StrEnum):
    """Of batches and fan-outs; `Saturated` of a Bulkhead; from `Ready` on, and `Suspended`, of a schedule."""

    INPUT_VALIDATED = "InputValidated"
    ADMITTED = "Admitted"
    PODS_READY = "PodsReady"
    BRANCHES_COMPLETE = "BranchesComplete"
    JOINED = "Joined"
    ENDPOINTS_AVAILABLE = "EndpointsAvailable"
    SUSPENDED = "Suspended"
    EVALUATED = "Evaluated"
    DATA_DRIFT = "DataDrift"
    COMPLETE = "Complete"
    FAILED = "Failed"
    SATURATED = "Saturated"
    READY = "Ready"
    DRIFT_EXCEEDED = "DriftExceeded"
    WAITING = "Waiting"
    INPUT_LISTED = "InputListed"


class Reason(StrEnum):
    """Why a condition is as it is."""

    # InputValidated
    INPUT_VALID = "InputValid"
    INPUT_INVALID = "InputInvalid"
    PLANNING = "Planning"
    PLAN_FAILED = "PlanFailed"
    # Admitted
    ADMITTED = "Admitted"
    QUOTA_EXCEEDED = "QuotaExceeded"
    CAPACITY_RESERVED = "CapacityReserved"
    PREEMPTED = "Preempted"
    STARTS_PER_MINUTE = "StartsPerMinute"
    TOKENS_PER_MINUTE = "TokensPerMinute"
    BUDGET_EXHAUSTED = "BudgetExhausted"
    BREAKER_OPEN = "BreakerOpen"
    EXCEEDS_CAPACITY = "ExceedsCapacity"
    NO_PODS_ALLOWED = "NoPodsAllowed"
    UNKNOWN_BULKHEAD = "UnknownBulkhead"
    NAMESPACE_NOT_SELECTED = "NamespaceNotSelected"
    WAITING_FOR_KUEUE = "WaitingForKueue"
    KUEUE_NOT_INSTALLED = "KueueNotInstalled"
    # PodsReady
    UNSCHEDULABLE = "Unschedulable"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    CONTAINER_NOT_CREATED = "ContainerNotCreated"
    PODS_STARTED = "PodsStarted"
    # EndpointsAvailable, besides BreakerOpen
    ENDPOINTS_ANSWER = "EndpointsAnswer"
    SOME_BREAKERS_OPEN = "SomeBreakersOpen"
    PARKED = "Parked"
    PROBING = "Probing"
    # BranchesComplete
    BRANCHES_RUNNING = "BranchesRunning"
    BRANCHES_SUCCEEDED = "BranchesSucceeded"
    BRANCHES_FAILED = "BranchesFailed"
    # Joined
    JOINING = "Joining"
    RECORDS_JOINED = "RecordsJoined"
    JOIN_FAILED = "JoinFailed"
    # Suspended
    SUSPENDED = "SuspendedBySpec"
    DRAINING = "Draining"
    RESUMED = "Resumed"
    PAUSED_BY_FAILURES = "PausedByFailures"
    PAUSED_BY_DRIFT = "PausedByDrift"
    # Evaluated
    EVALUATING = "Evaluating"
    ANSWERS_EVALUATED = "AnswersEvaluated"
    EVALUATION_FAILED = "EvaluationFailed"
    # DataDrift
    DISTRIBUTION_CHANGED = "DistributionChanged"
    DISTRIBUTION_UNCHANGED = "DistributionUnchanged"
    NOT_COMPARED = "NotCompared"
    # Complete
    RECORDS_PROCESSED = "RecordsProcessed"
    RECORDS_PROCESSED_WITH_ERRORS = "RecordsProcessedWithErrors"
    NO_DATA = "NoData"
    PARTIALLY_SUCCEEDED = "PartiallySucceeded"
    # Failed
    INVALID_SPEC = "InvalidSpec"
    TOO_MANY_FAILED_RECORDS = "TooManyFailedRecords"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    CANCELLED = "Cancelled"
    BUDGET_EXCEEDED = "BudgetExceeded"
    SHARD_FAILED = "ShardFailed"
    WORKER_FAILED = "WorkerFailed"
    FINALIZE_FAILED = "FinalizeFailed"
    RETRYING = "Retrying"
    # Saturated
    CAPACITY_AVAILABLE = "CapacityAvailable"
    # Ready
    SCHEDULED = "Scheduled"
    KUBERNETES_TOO_OLD = "KubernetesTooOld"
    CHECKING_KUBERNETES = "CheckingKubernetes"
    RUN_AT_PASSED = "RunAtPassed"
    MISSED = "Missed"
    WATCHING = "Watching"
    # DriftExceeded
    BEGUN_LATE = "BegunLate"
    NOT_BEGUN = "NotBegun"
    BEGUN_IN_TIME = "BegunInTime"
    NO_LIMIT = "NoLimit"
    # Waiting
    OUTSIDE_WINDOW = "OutsideWindow"
    DEPENDENCY_NOT_MET = "DependencyNotMet"
    NOTHING_WAITS = "NothingWaits"
    # InputListed
    LISTING = "Listing"
    OBJECTS_LISTED = "ObjectsListed"
    LISTING_FAILED = "ListingFailed"
