-- Grain: one arm of one run of the compare flow, over the clips both arms answered in the latency pass.
-- Columns:
--   run_id                               run
--   finished                             whether the run reached its end
--   finished_at                          when the run ended (UTC)
--   dataset                              name of the dataset
--   arm                                  "a" or "b"
--   model                                registered name of the model of the arm
--   revision                             content hash of weights and options
--   rung                                 settings in force, for example "int8/cpu"
--   hardware                             processor, cores, memory, accelerator, as JSON; times compare on the same one only
--   clips                                clips behind the quantiles, the same ones in both arms
--   p50_ms, p90_ms, p95_ms, p99_ms       quantile over the clips of the time from call to answer at batch 1 in ms, interpolated
--   max_ms                               the slowest clip in ms
-- Example:
--   SELECT finished_at, model, clips, p50_ms, p95_ms, p99_ms
--   FROM latency_quantiles
--   WHERE finished
--   ORDER BY finished_at DESC, arm
WITH measured AS (
    SELECT run_id, 'a' AS arm, latency_ms_a AS ms
    FROM ab_clips
    WHERE latency_ms_difference IS NOT NULL
    UNION ALL
    SELECT run_id, 'b' AS arm, latency_ms_b AS ms
    FROM ab_clips
    WHERE latency_ms_difference IS NOT NULL
)
SELECT
    r.run_id,
    r.finished,
    r.finished_at,
    r.dataset,
    m.arm,
    CASE m.arm WHEN 'a' THEN r.model_a ELSE r.model_b END AS model,
    CASE m.arm WHEN 'a' THEN r.revision_a ELSE r.revision_b END AS revision,
    CASE m.arm WHEN 'a' THEN r.rung_a ELSE r.rung_b END AS rung,
    r.hardware,
    count(*) AS clips,
    quantile_cont(m.ms, 0.5) AS p50_ms,
    quantile_cont(m.ms, 0.9) AS p90_ms,
    quantile_cont(m.ms, 0.95) AS p95_ms,
    quantile_cont(m.ms, 0.99) AS p99_ms,
    max(m.ms) AS max_ms
FROM measured m
INNER JOIN ab_runs r ON r.run_id = m.run_id
GROUP BY ALL
