"""The pipeline: wires the stages, recovers at the start, shuts down in order."""

from watchman.notify.catchup import CLOCK_GRAIN_NS
from watchman.notify.identity import NAMESPACE, task_id
from watchman.notify.pipeline import Pipeline

__all__ = ["CLOCK_GRAIN_NS", "NAMESPACE", "Pipeline", "task_id"]
