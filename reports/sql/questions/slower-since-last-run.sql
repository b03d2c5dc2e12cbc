-- Question: What got slower since the last run (latency, 95th percentile)?
-- Grain: one arm of the asked run that the same model also had in an earlier finished run on the same dataset.
-- Columns:
--   arm                                  "a" or "b"
--   model                                registered name of the model of the arm
--   previous_run_id                      the latest earlier run with this model in this arm on this dataset
--   p50_ms                               median over clips of the time from call to answer at batch 1 in ms
--   p95_ms                               95th percentile in ms
--   previous_p95_ms                      the same of the previous run in ms
--   p95_difference_ms                    p95_ms - previous_p95_ms; above 0 it got slower
--   p95_percent_change                   100 * p95_difference_ms / previous_p95_ms, in percent
--   clips, previous_clips                clips behind the quantiles
--   same_revision                        whether weights and options are the same: if so, the machine or its load changed, not the model
--   same_hardware                        whether both runs saw the same processor, cores, memory and accelerator; if not, times do not compare
-- Variables:
--   run                                  run id; without it the comparison that finished last
WITH beside AS (
    SELECT
        *,
        lag(run_id) OVER earlier AS previous_run_id,
        lag(p95_ms) OVER earlier AS previous_p95_ms,
        lag(clips) OVER earlier AS previous_clips,
        revision = lag(revision) OVER earlier AS same_revision,
        hardware = lag(hardware) OVER earlier AS same_hardware
    FROM latency_quantiles
    WHERE finished
    WINDOW earlier AS (PARTITION BY dataset, arm, model ORDER BY finished_at, run_id)
)
SELECT
    l.arm,
    l.model,
    l.previous_run_id,
    l.p50_ms,
    l.p95_ms,
    l.previous_p95_ms,
    l.p95_ms - l.previous_p95_ms AS p95_difference_ms,
    100 * p95_difference_ms / nullif(l.previous_p95_ms, 0) AS p95_percent_change,
    l.clips,
    l.previous_clips,
    l.same_revision,
    l.same_hardware
FROM beside l
INNER JOIN asked_run ON asked_run.run_id = l.run_id
WHERE l.previous_run_id IS NOT NULL
ORDER BY p95_percent_change DESC, l.arm
