"""What a cascade saves: tokens of records that later stages were not given."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from headrace.core.fanout.branches import BranchView


def saved_tokens(branches: Sequence[BranchView]) -> int | None:
    """An estimate; None without a cascade, and before its first selection.

    A record that a branch was not given counts what those that it had have cost it on average, or else what one has cost all branches of
    the stages before.
    """
    known = [view for view in branches if view.branch.stage > 0 and view.given is not None]
    if not known:
        return None
    return sum(_saved(view, branches) for view in known)


def _saved(view: BranchView, branches: Sequence[BranchView]) -> int:
    own = _cost([view])
    earlier = _cost(other for other in branches if other.branch.stage < view.branch.stage)
    tokens, records = own if own[1] else earlier
    return tokens * view.not_given // records if records else 0


def _cost(branches: Iterable[BranchView]) -> tuple[int, int]:
    """Tokens, and the records that they were for."""
    statuses = [view.child.status for view in branches if view.child is not None]
    usages = [status.usage for status in statuses]
    done = sum(status.records.succeeded + status.records.failed for status in statuses)
    return sum(usage.prompt_tokens + usage.completion_tokens for usage in usages), done
