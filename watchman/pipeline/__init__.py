"""The pipeline: wires the stages, recovers at the start, shuts down in order."""

from watchman.pipeline.first_runs import CLOCK_GRAIN_NS
from watchman.pipeline.pipeline import Pipeline
from watchman.pipeline.task_id import NAMESPACE, task_id

__all__ = ["CLOCK_GRAIN_NS", "NAMESPACE", "Pipeline", "task_id"]
