"""The pipeline: wires the stages, recovers at the start, shuts down in order."""

from watchman.notify.catchup import CLOCK_GRAIN_NS
from watchman.notify.lasting import Lasting
from watchman.notify.pipeline import Pipeline
from watchman.notify.task_id import NAMESPACE, task_id

__all__ = ["CLOCK_GRAIN_NS", "NAMESPACE", "Lasting", "Pipeline", "task_id"]
