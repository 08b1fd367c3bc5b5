"""What happens to the pods of a cluster in its everyday life, while pictures are drawn."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.deploy.rehearsal import credentials
from tests.deploy.rehearsal.cluster import IMAGE_ENVIRONMENT, REPOSITORY, Cluster
from tests.deploy.rehearsal.pods import Pod
from tests.deploy.rendering import RENDERINGS, of_kind, pods_of, render

_MODEL = REPOSITORY / "deploy" / "demo" / "model"
_PROMPT = "a yellow star at the top right on a blue background"
LONG = 400
"""Steps: several seconds of the demo model."""


class Rehearsal:
    """An overlay on this machine: the demo model for the one that it serves, CPUs for its GPUs."""

    def __init__(self, overlay: str, directory: Path) -> None:
        self._objects = render(RENDERINGS[overlay])
        self.directory = directory
        secrets = credentials.make(directory / "secrets")
        models = directory / "models"
        model = Path(pods_of(self._objects, "executor").variables["MODEL"])
        shutil.copytree(_MODEL, models / model.relative_to("/models"))
        self.cluster = Cluster(
            directory,
            of_kind(self._objects, "Service"),
            {**secrets, "models": models},
            {"/checkpoints": models},
        )
        self._client = secrets["client"]
        self._pool = ThreadPoolExecutor(4)

    def start(
        self,
        workload: str,
        name: str,
        *,
        role: str = "worker",
        ranks: int = 1,
        given: Mapping[str, str] | None = None,
        arguments: Mapping[str, str] | None = None,
    ) -> Pod:
        return self.cluster.start(
            pods_of(self._objects, workload, role),
            name,
            given=given,
            environment={"RANKS": str(ranks), "SERVED_NAME": "demo", "OMP_NUM_THREADS": "1"},
            arguments=arguments,
        )

    def ready(self, workload: str, name: str, **options: Any) -> Pod:
        pod = self.start(workload, name, **options)
        seconds = self.cluster.await_ready(pod)
        print(f"{name}: ready after {seconds:.1f} s", flush=True)
        return pod

    def draw(self, name: str, *options: str) -> bytes:
        """A picture by the command line, through the service that clients reach."""
        file = self.directory / f"{name}.png"
        record = file.with_suffix(".json")
        command = ["generate", "--planner", "planner:7330", *self._credentials("anna")]
        command += ["--model", "demo", "--prompt", _PROMPT, "--seed", "1", *options]
        done = subprocess.run(
            [sys.executable, "-m", "planner", *command, "--out", file, "--record", record],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            env={**IMAGE_ENVIRONMENT, "NO_COLOR": "1"},
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return file.read_bytes()

    def drawing(self, name: str, *options: str) -> Future[bytes]:
        return self._pool.submit(self.draw, name, *options)

    def runs_on(self, pods: list[Pod], started: int = 1) -> Pod:
        """The executor whose log has so many begun runs, and one that has not ended."""

        def found() -> Iterator[Pod]:
            for pod in pods:
                events = [_event(line) for line in pod.log.splitlines()]
                begun = events.count("run_started")
                if begun >= started and begun > events.count("run_finished"):
                    yield pod

        return _eventually(lambda: next(found(), None))

    def _credentials(self, token: str) -> list[str]:
        if "--insecure" in pods_of(self._objects, "planner").command:
            return ["--insecure"]
        tls = {"--tls-ca": "ca.crt", "--tls-cert": "tls.crt", "--tls-key": "tls.key"}
        files = [word for key, name in tls.items() for word in (key, str(self._client / name))]
        return [*files, "--token-file", str(self._client / f"{token}.token")]


def rollout() -> None:
    """New planners come and old ones go during a run: replicas, then the one that dispatches."""
    with rehearsed("local") as place:
        dispatch = place.ready("dispatch", "dispatch-0")
        old = place.ready("planner", "planner-old")
        executor = place.ready("executor", "executor-0")
        steps = ("--steps", str(LONG))
        undisturbed = place.draw("undisturbed", *steps)
        run = place.drawing("disturbed", *steps)
        place.runs_on([executor], started=2)
        new = place.ready("planner", "planner-new")
        _ended_well(place, old)
        _ended_well(place, dispatch)
        place.ready("dispatch", "dispatch-0")
        assert run.result(120) == undisturbed
        events = [_event(line) for line in executor.log.splitlines()]
        assert events.count("run_started") == 2, "no attempt was lost"
        assert new.is_running


def executor_goes() -> None:
    """An executor's pod is deleted during a run: within its grace the run ends, or goes on
    elsewhere; a node that is lost loses nothing either."""
    with rehearsed("single-node") as place:
        place.ready("dispatch", "dispatch-0")
        place.ready("planner", "planner-0")
        pods = [place.start("executor", f"executor-{i}") for i in range(2)]
        for pod in pods:
            place.cluster.await_ready(pod)
        steps = ("--steps", str(LONG))
        undisturbed = place.draw("undisturbed", *steps)

        run = place.drawing("drained", *steps)
        first = place.runs_on(pods)
        _ended_well(place, first)
        assert run.result(60) == undisturbed
        assert "run_handed_back" not in {_event(line) for line in first.log.splitlines()}

        pods = [pod for pod in pods if pod is not first]
        pods.append(place.ready("executor", "executor-2", arguments={"--drain-seconds": "0.5"}))
        pods.append(place.ready("executor", "executor-3", arguments={"--drain-seconds": "0.5"}))
        _ended_well(place, pods.pop(0))
        run = place.drawing("handed-back", *steps)
        second = place.runs_on(pods)
        _ended_well(place, second)
        assert run.result(120) == undisturbed

        pods = [pod for pod in pods if pod is not second]
        pods.append(place.ready("executor", "executor-4"))
        run = place.drawing("lost", *steps)
        third = place.runs_on(pods)
        place.cluster.kill(third)
        assert run.result(120) == undisturbed


def two_nodes() -> None:
    """A group of two nodes meets and draws what the same ranks draw on one."""
    config = "parallelism_config: {ulysses_size: 2}\n"
    with rehearsed("multi-node") as place:
        file = place.directory / "parallel.yaml"
        file.write_text(config)
        place.ready("dispatch", "dispatch-0")
        place.ready("planner", "planner-0")
        pictures = []
        for nodes in (2, 1):
            pods = [
                place.start(
                    "executor",
                    f"executor-{nodes}-{i}",
                    role="leader" if i == 0 else "worker",
                    ranks=2 // nodes,
                    given={
                        "LWS_LEADER_ADDRESS": f"executor-{nodes}-0",
                        "LWS_GROUP_SIZE": str(nodes),
                        "LWS_WORKER_INDEX": str(i),
                    },
                )
                for i in range(nodes)
            ]
            place.cluster.await_ready(pods[0])
            pictures.append(place.draw(f"on-{nodes}", "--config", str(file)))
            if nodes == 1:
                break
            # The worker's node is drained; the leader's hears of it, and the group ends as one.
            leader, worker = pods
            _ended_well(place, worker)
            leader.process.wait(20)
            assert "drained" in {_event(line) for line in leader.log.splitlines()}
            _ended_well(place, leader)
        assert pictures[0] == pictures[1]


SCENARIOS: dict[str, Callable[[], None]] = {
    "rollout": rollout,
    "executor-goes": executor_goes,
    "two-nodes": two_nodes,
}


@contextmanager
def rehearsed(overlay: str) -> Iterator[Rehearsal]:
    directory = Path(tempfile.mkdtemp(prefix="rehearsal-"))
    directory.chmod(0o755)
    try:
        place = Rehearsal(overlay, directory)
        try:
            yield place
        except BaseException:
            for log in sorted(directory.glob("*.log")):
                print(f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}")
            raise
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _ended_well(place: Rehearsal, pod: Pod) -> None:
    ending = place.cluster.delete(pod)
    print(f"{pod.name}: gone after {ending.seconds:.1f} s")
    assert not ending.killed, f"{pod.name} used up its grace: {pod.log}"


def _event(line: str) -> str:
    try:
        return str(json.loads(line)["event"])
    except (ValueError, KeyError, TypeError):
        return ""


def _eventually(find: Callable[[], Pod | None], seconds: float = 60) -> Pod:
    deadline = time.monotonic() + seconds
    while (found := find()) is None:
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)
    return found
