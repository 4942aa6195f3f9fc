"""A random story of faults, and what must be true after each of its steps and at its end. Everything follows from its seed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from policy.rules.prompt import LAST_PLACE
from tests.faults.judge import Case, Submission, Told, Verdict, judge
from tests.faults.simulation.comfyui import Moods, SimulatedComfyUI
from tests.faults.simulation.database import Store
from tests.faults.simulation.gate import NO_ANSWER, SimulatedGate
from tests.faults.simulation.loop import START_S, now_s

WEIGHTS = {"alice": 1.0, "mallory": 2.0}
STEPS = 40
LONGEST_PAUSE_S = 3.0
LONGEST_JOB_S = 2.0
END_S = 2000.0
"""After the last fault everything has come to an end by then."""
_STATUS = {"succeeded": "success", "failed": "error"}
_UNFINISHED = ("waiting", "dispatched", "running")
ODD = Moods(late=0.04, lost=0.03, unheard=0.03, silent=0.01, busy=0.02)


@dataclass
class Story:
    """gates: how many share the database. is_odd: whether ComfyUI's answers are odd, besides that it is killed. window: of ComfyUI. told: what happened."""

    seed: int
    gates: int = 1
    is_odd: bool = False
    window: int = 2
    submissions: list[Submission] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.comfyui = SimulatedComfyUI(random.Random(self.seed + 1))
        self.store = Store(random.Random(self.seed + 2))
        self.running: dict[int, SimulatedGate] = {}
        self.held: dict[int, set[str]] = {}
        self.began: dict[int, set[str]] = {}
        self.unseen: dict[int, set[str]] = {}
        self._lives = 0
        self._queues: dict[str, asyncio.Queue[tuple[str, float, bool]]] = {}

    async def play(self) -> Verdict:
        """Its faults, then good days until everything has ended; what is wrong by then."""
        self._queues = {tenant: asyncio.Queue() for tenant in WEIGHTS}
        clients = [asyncio.ensure_future(self._submit_for(tenant)) for tenant in WEIGHTS]
        self.comfyui.start()
        for index in range(self.gates):
            await self._start_gate(index)
        if self.is_odd:
            self.comfyui.moods, self.store.unsaid = ODD, 0.01
        for _ in range(STEPS):
            await asyncio.sleep(self.chance.uniform(0, LONGEST_PAUSE_S) ** 2 / LONGEST_PAUSE_S)
            await self._step()
            self._check()
        await self._mend()
        begun_s = now_s()
        while self._is_busy() and now_s() - begun_s < END_S:
            await asyncio.sleep(1.0)
            self._check()
        for client in clients:
            if client.done():  # else it waits for jobs to submit
                client.result()
            client.cancel()
        verdict = self._judge()
        for gate in self.running.values():
            await gate.kill()
        self.store.close()
        return verdict

    async def _step(self) -> None:
        actions: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (10, self._order_jobs),
            (2, self._kill_comfyui),
            (3, self._start_comfyui),
            (2, self._kill_a_gate),
            (3, self._start_a_gate),
            (1, self._lose_database),
            (3, self._find_database),
        ]
        (act,) = self.chance.choices([act for _, act in actions], [weight for weight, _ in actions])
        await act()

    def _tell(self, what: str) -> None:
        self.told.append(f"{now_s() - START_S:.3f} {what}")

    async def _order_jobs(self) -> None:
        tenant = self.chance.choice(list(WEIGHTS))
        for _ in range(self.chance.randint(1, 6)):
            name = f"{tenant}-{len(self.told):03}"
            self._tell(f"{name} is to be submitted")
            self._queues[tenant].put_nowait(
                (name, self.chance.uniform(0.01, LONGEST_JOB_S), self.chance.random() < 0.5)
            )

    async def _submit_for(self, tenant: str) -> None:
        queue = self._queues[tenant]
        while True:
            name, seconds, is_sure = await queue.get()
            submission = Submission(tenant, name)
            self.submissions.append(submission)
            if self.running:
                gate = self.running[self.chance.choice(sorted(self.running))]
                try:
                    submission.prompt_id = await gate.submit(tenant, name, seconds, is_sure=is_sure)
                except NO_ANSWER as error:
                    submission.answers.append(0)
                    self._tell(f"{name} is not taken: {error!r}")
                else:
                    submission.answers.append(200)
                    self._tell(f"{name} is taken by {gate.name} as {submission.prompt_id}")
            queue.task_done()

    async def _kill_comfyui(self) -> None:
        if self.comfyui.is_up:
            self._tell("ComfyUI is killed")
            await self.comfyui.kill()
            states = self.store.jobs()
            life, known = list(self.comfyui.known.items())[-1]
            # Where answers get lost, the gate may think of any job that ComfyUI had it.
            candidates = states if self.is_odd else known
            self.held[life] = {each for each in candidates if states.get(each, "waiting") in _UNFINISHED}
            self.began[life] = self.held[life] if self.is_odd else self._may_have_begun(life)
            if self.is_odd:
                self.unseen[life] = {each for each in self.held[life] if states.get(each) != "running"}

    def _may_have_begun(self, life: int) -> set[str]:
        """Of those that it held: what had begun, and the first that it had been given and nobody knew the end of."""
        begun = {line.prompt_id for line in self.comfyui.lines if line.life == life and line.event == "begin"}
        return (begun & self.held[life]) | set(self.store.given()[:1])

    async def _start_comfyui(self) -> None:
        if not self.comfyui.is_up:
            self._tell("ComfyUI is started")
            self.comfyui.start()

    async def _kill_a_gate(self) -> None:
        if self.running:
            index = self.chance.choice(sorted(self.running))
            gate = self.running.pop(index)
            self._tell(f"{gate.name} is killed")
            await gate.kill()
            if self.is_odd:  # with it goes what it knew of answers that it waited for
                states = self.store.jobs()
                self.held[-self._lives] = {each for each in states if states[each] in _UNFINISHED}
                self.began[-self._lives] = self.held[-self._lives]

    async def _start_a_gate(self) -> None:
        missing = [index for index in range(self.gates) if index not in self.running]
        if missing and self.store.is_up:
            await self._start_gate(self.chance.choice(missing))

    async def _start_gate(self, index: int) -> None:
        self._lives += 1
        gate = SimulatedGate(f"gate {index}, life {self._lives}", self.comfyui, self.store, WEIGHTS, self.window)
        self._tell(f"{gate.name} is started")
        await gate.start()
        self.running[index] = gate

    async def _lose_database(self) -> None:
        self._tell("the database is gone")
        self.store.is_up = False

    async def _find_database(self) -> None:
        if not self.store.is_up:
            self._tell("the database is back")
            self.store.is_up = True
            for door in self.store.doors:
                door.tell()  # nobody knows what was written meanwhile

    async def _mend(self) -> None:
        self._tell("from now on all is well")
        self.comfyui.moods, self.store.unsaid = Moods(), 0.0
        await self._find_database()
        await self._start_comfyui()
        if not self.running:
            await self._start_gate(0)

    def _is_busy(self) -> bool:
        is_submitting = any(queue._unfinished_tasks for queue in self._queues.values())  # type: ignore[attr-defined]
        return is_submitting or any(state in _UNFINISHED for state in self.store.jobs().values())

    def _check(self) -> None:
        """Invariants. AssertionError."""
        states = self.store.jobs()
        for submission in self.submissions:
            assert submission.prompt_id is None or submission.prompt_id in states, f"{submission} is recorded no more"
        given = self.comfyui.given
        assert len({prompt_id for _, prompt_id in given}) == len(given), f"ComfyUI has a job twice: {given}"
        placed = [each for each in given if each[0] < LAST_PLACE]
        assert len(placed) <= self.window, f"ComfyUI has more than {self.window}: {placed}"
        wrong = [each for each in self._judge().wrong if "begun again" in each or "more than twice" in each]
        assert not wrong, wrong

    def _judge(self) -> Verdict:
        told = {}
        for tenant in WEIGHTS:
            states = self.store.jobs_of(tenant)
            history = {prompt_id: _STATUS[state] for prompt_id, state in states.items() if state in _STATUS}
            told[tenant] = Told(history, [each for each, state in states.items() if state in _UNFINISHED])
        case = Case(
            self.submissions,
            self.comfyui.lines,
            self.comfyui.deaths,
            told,
            # A job of which ComfyUI has not said whether it took it is passed by those behind it, until that is known.
            is_ordered=not self.is_odd,
            held=self.held,
            began=self.began,
            tried=self.comfyui.tried,
            unseen=self.unseen,
        )
        return judge(case)
