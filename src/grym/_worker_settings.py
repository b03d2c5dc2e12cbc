"""What grym.toml says about child processes: ``[worker]``.

Read by :mod:`grym.config`, which is the one reader of the file. Times are seconds,
sizes MB (10^6 bytes). A limit of 0 is off.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator


class WorkerLimits(BaseModel):
    """``[worker]``: what a child process may use and how long it may take.

    Attributes:
        start_seconds: deadline of starting a child and loading its model.
        call_seconds: deadline of a call, before the audio's share.
        call_seconds_per_audio_second: the audio's share.
        threads: threads of a worker; 0 means all cores.
        attempts: tries of a batch before its clips are tried one by one.
        memory_mb: resident memory of a worker with its helpers; ``[models.NAME] memory_mb`` overrides it.
        memory_share: the same as a share of what the machine, or the container, has.
        cpu_seconds: processor time of one call, all threads together.
        open_files: descriptors of a worker.
        processes: processes of a worker, itself included.
        file_mb: largest file that a worker may write.
        confine: whether a worker may write to its scratch folder and its cache only, may open no TCP connection and
            signal nobody else; kept by Landlock, where the kernel has it.
        backoff_seconds: wait after a start that failed, doubled for each further one, and after crashes in a row.
        backoff_max_seconds: longest such wait.
        queue: calls that may wait for a worker, or for the workers of a pool.
        workers: workers of one model in a route; 0: as many as memory and cores allow.
        recycle_after: calls after which a worker of a pool is replaced.
        decode_seconds: deadline of decoding one file.
        decode_memory_mb: memory of a process that decodes.
        memory_expiry_seconds: how long it is remembered that a size, or a setting, was too much for the memory.
        degrade: whether a route may use cheaper settings of a model when memory is short or calls pile up.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    start_seconds: float = Field(default=120.0, gt=0)
    call_seconds: float = Field(default=30.0, gt=0)
    call_seconds_per_audio_second: float = Field(default=2.0, ge=0)
    threads: int = Field(default=0, ge=0)
    attempts: int = Field(default=3, ge=1)
    memory_mb: float = Field(default=0.0, ge=0)
    memory_share: float = Field(default=0.9, ge=0, le=1)
    cpu_seconds: float = Field(default=0.0, ge=0)
    open_files: int = Field(default=1024, ge=0)
    processes: int = Field(default=32, ge=0)
    file_mb: float = Field(default=2000.0, ge=0)
    confine: bool = True
    backoff_seconds: float = Field(default=0.1, ge=0)
    backoff_max_seconds: float = Field(default=60.0, ge=0)
    queue: int = Field(default=16, ge=0)
    workers: int = Field(default=1, ge=0, le=256)
    recycle_after: int = Field(default=0, ge=0)
    decode_seconds: float = Field(default=30.0, gt=0)
    decode_memory_mb: float = Field(default=2000.0, ge=0)
    memory_expiry_seconds: float = Field(default=3600.0, ge=0)
    degrade: bool = True

    @model_validator(mode="after")
    def _usable(self) -> WorkerLimits:
        if 0 < self.open_files < LEAST_FILES:
            msg = f"worker.open_files should be 0 or at least {LEAST_FILES}, not {self.open_files}"
            raise ValueError(msg)
        for name in ("memory_mb", "decode_memory_mb"):
            if 0 < getattr(self, name) < LEAST_MEMORY_MB:
                msg = f"worker.{name} should be 0 or at least {LEAST_MEMORY_MB}, not {getattr(self, name):g}"
                raise ValueError(msg)
        return self


LEAST_FILES = 64
LEAST_MEMORY_MB = 100
