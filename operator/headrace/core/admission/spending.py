"""What the members of one bulkhead have used up and how fast they have started: the limits over time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice

from headrace.api.bulkhead import Budget, BudgetResource, BudgetScope, BulkheadSpec
from headrace.api.bulkheadstatus import BudgetUse
from headrace.api.reasons import Reason
from headrace.core.admission.budgets import Window
from headrace.core.admission.demand import Demand
from headrace.core.admission.entry import Cause

MINUTE = timedelta(seconds=60)


@dataclass(slots=True)
class Starts:
    """Who has started within the last minute, in the order of time."""

    times: dict[str, datetime] = field(default_factory=dict)

    def add(self, key: str, at: datetime) -> None:
        """One has started. Seen again, from its status, it is the same start."""
        known = self.times.get(key)
        if known is None or known < at:
            self.times.pop(key, None)
            in_order = not self.times or next(reversed(self.times.values())) <= at
            self.times[key] = at
            if not in_order:
                self.times = dict(sorted(self.times.items(), key=lambda start: start[1]))

    def full_until(self, limit: int, now: datetime) -> datetime | None:
        """When the next may start; None when one may now."""
        while self.times and next(iter(self.times.values())) + MINUTE <= now:
            del self.times[next(iter(self.times))]
        if len(self.times) < limit:
            return None
        return next(islice(self.times.values(), len(self.times) - limit, None)) + MINUTE


@dataclass(slots=True)
class Spending:
    """The windows of a bulkhead's budgets, and its tokens of the last minute."""

    budgets: tuple[Budget, ...] = ()
    tokens_per_minute: int | None = None
    windows: dict[tuple[str, str], Window] = field(default_factory=dict)
    """By budget and namespace; without a namespace where all count together."""
    minute: Window = field(default_factory=lambda: Window(60))

    def follow(self, spec: BulkheadSpec) -> None:
        """The spec has changed: what was used under a budget of the same name, resource and window still counts."""
        before = {(b.name, b.resource, b.window_seconds, b.scope) for b in self.budgets}
        kept = {b.name for b in spec.budgets if (b.name, b.resource, b.window_seconds, b.scope) in before}
        self.windows = {place: window for place, window in self.windows.items() if place[0] in kept}
        self.budgets, self.tokens_per_minute = spec.budgets, spec.capacity.tokens_per_minute

    def restore(self, used: Iterable[BudgetUse]) -> None:
        """Go on from what a status says."""
        seconds = {budget.name: budget.window_seconds for budget in self.budgets}
        for use in used:
            if use.name in seconds:
                self.windows[use.name, use.namespace] = Window.of(seconds[use.name], use.slots)

    def charge(self, before: Demand, after: Demand, now: datetime) -> bool:
        """A batch has used more than when it was last seen; whether anything was charged."""
        tokens, gpu_seconds = after.tokens - before.tokens, after.gpu_seconds - before.gpu_seconds
        if self.tokens_per_minute is not None and tokens > 0:
            self.minute.add(tokens, now)
        charged = False
        for budget in self.budgets:
            amount = tokens if budget.resource == BudgetResource.TOKENS else gpu_seconds
            if amount > 0:
                self._window(budget, after.namespace).add(amount, now)
                charged = True
        return charged

    def exhausted(self, namespace: str, now: datetime) -> tuple[Budget, Window, datetime] | None:
        """The budget that has nothing left for the namespace for the longest time, what is used of it, and until when."""
        found = [
            (budget, window, until)
            for budget in self.budgets
            for window in [self._window(budget, namespace)]
            for until in [window.exhausted_until(budget.limit, now)]
            if until is not None
        ]
        return max(found, key=lambda it: it[2], default=None)

    def cause(self, namespace: str, now: datetime) -> Cause | None:
        """The budget that has nothing left for the namespace, in numbers; None when there is something of each."""
        found = self.exhausted(namespace, now)
        if found is None:
            return None
        budget, window, until = found
        whose = f" by namespace {namespace}" if budget.scope == BudgetScope.NAMESPACE else ""
        used = f"{window.used} of {budget.limit} {budget.resource} used{whose} in {budget.window_seconds} s"
        message = f"budget {budget.name}: {used}, exhausted until {until:%Y-%m-%dT%H:%M:%SZ}"
        return Cause(Reason.BUDGET_EXHAUSTED, message)

    def tokens_until(self, now: datetime) -> datetime | None:
        """When fewer tokens than the limit will have been used within a minute; None when that is so now."""
        return self.minute.exhausted_until(self.tokens_per_minute, now) if self.tokens_per_minute is not None else None

    def uses(self, now: datetime) -> tuple[BudgetUse, ...]:
        """For the status; of very many namespaces, those that have used the most."""
        limits = {budget.name: budget.limit for budget in self.budgets}
        found = []
        for (name, namespace), window in self.windows.items():
            until = window.exhausted_until(limits[name], now)
            use = BudgetUse(
                name=name, namespace=namespace, used=window.used, exhausted_until=until, slots=window.text()
            )
            found.append(use)
        return tuple(sorted(sorted(found, key=lambda use: -use.used)[:1024], key=lambda use: (use.name, use.namespace)))

    def _window(self, budget: Budget, namespace: str) -> Window:
        place = (budget.name, namespace if budget.scope == BudgetScope.NAMESPACE else "")
        return self.windows.setdefault(place, Window(budget.window_seconds))
