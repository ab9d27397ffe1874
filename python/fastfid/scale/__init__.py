"""Sets that are read in tasks: by several processes, or by one that may be killed and run again.

A task is a run of images of one side. Its outcome is a Part, which depends on nothing but the task. A run directory
holds the plan, which lists the tasks, and the Parts. The Parts in the order of the plan give what one process has that
reads the whole set, bit for bit.
"""

from fastfid.scale.run import RunDirectory

__all__ = ["RunDirectory"]
