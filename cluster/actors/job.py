"""What Ray tells a submitted job, and by which signals it and others stop a run; without importing Ray."""

import os
import signal

from rollout.errors import ClusterError

JOB_CONFIG, JOB_GRACE = "RAY_JOB_CONFIG_JSON_ENV_VAR", "RAY_JOB_STOP_WAIT_TIME_S"
RAYS_GRACE_S = "3"  # of a job that names none
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def in_job() -> bool:
    return JOB_CONFIG in os.environ


def job_grace_s() -> float:
    """Seconds that Ray leaves a job between its stop and its end. Raises ClusterError for what is no whole number, with which
    Ray stops no job."""
    told = os.environ.get(JOB_GRACE, RAYS_GRACE_S)
    if not (told.isascii() and told.isdigit()):
        raise ClusterError(f"{JOB_GRACE}={told}: is no whole number of seconds; submit the job with one, such as 120")
    return float(told)
