"""Tune's population-based training with exchanges at a standstill: every member is paused, and its state is saved."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import PopulationBasedTraining, TrialScheduler
from ray.tune.search import BasicVariantGenerator

from rlcas.seeding import seed_for


class SynchronousPBT(PopulationBasedTraining):
    """Jaderberg et al. 2017 by Tune, all members together.

    Tune's own synchronous mode exchanges as soon as the last member has reported. Another may still be saving the
    state that it is to be paused with, and if that one is to take over a better one's, Tune ends it for good (2.60).

    Args:
        time: the result that counts epochs.
        metric: the result that is compared; more is better.
        every: epochs from one exchange to the next.
        num_members: members of the population.
        concurrent: members that train side by side.
        explore: returns a member's next config from the better one's.
        seed: of the draws.
    """

    def __init__(
        self,
        *,
        time: str,
        metric: str,
        every: int,
        num_members: int,
        concurrent: int,
        explore: Callable[[dict[str, Any]], dict[str, Any]],
        seed: int,
    ) -> None:
        super().__init__(
            time_attr=time,
            metric=metric,
            mode="max",
            perturbation_interval=every,
            synch=True,
            custom_explore_fn=explore,
            # Otherwise Tune writes files of its own about each exchange into the trials' folders.
            log_config=False,
        )
        self._time, self._every, self._seed = time, every, seed
        self._num_members, self._concurrent = num_members, concurrent
        self._waiting: set[TuneTrial] = set()

    def on_trial_result(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> str:
        """Pause a member that has trained to the next exchange."""
        if result[self._time] % self._every:
            return TrialScheduler.CONTINUE
        self._waiting.add(trial)
        return TrialScheduler.PAUSE

    def choose_trial_to_run(self, tune_controller: Any) -> TuneTrial | None:
        """Exchange when all members stand still; return the one that is behind the others, where there is room."""
        members, live = tune_controller.get_trials(), tune_controller.get_live_trials()
        # Tune makes trials one by one: paused ones are not all of the population before the last is made.
        begun = len(members) == self._num_members
        if begun and live and all(member.status == TuneTrial.PAUSED for member in live):
            self._exchange(tune_controller, [member for member in members if member in live])
        active = sum(member.status in (TuneTrial.PENDING, TuneTrial.RUNNING) for member in live)
        # Those in `_waiting` are paused for the exchange; after it all are paused and none waits.
        idle = [
            member for member in members if member.status == TuneTrial.PAUSED and member not in self._waiting
        ]
        if not idle or active >= self._concurrent:
            return None
        return min(idle, key=lambda member: member.last_result[self._time])

    def _exchange(self, tune_controller: Any, members: list[TuneTrial]) -> None:
        """Let Tune take the members' results: with the last, the worse ones take over the better ones' states."""
        state = random.getstate()  # Tune draws from the global generator
        # A stream of its own, named by the epoch.
        random.seed(seed_for(self._seed, "population", members[0].last_result[self._time]))
        try:
            # In the order of the trials, not of their reports. Each is paused already, so that Tune's answer is
            # not needed.
            for member in members:
                super().on_trial_result(tune_controller, member, member.last_result)
        finally:
            random.setstate(state)
        self._waiting.clear()


class MembersInTurn(BasicVariantGenerator):
    """Begins `concurrent` members, and another one whenever one is paused for the first exchange.

    Args:
        time: the result that counts epochs.
        every: epochs from one exchange to the next.
        concurrent: members that train side by side.
    """

    def __init__(self, *, time: str, every: int, concurrent: int) -> None:
        super().__init__(max_concurrent=concurrent)
        self._time, self._every = time, every

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Make room where a member is paused."""
        if result[self._time] % self._every == 0:
            # The generator counts live trials against `max_concurrent`: ending this one there makes room for
            # the next.
            self.on_trial_complete(trial_id)
