-- Question: How fast is each revision of a model in batches, and how much memory does it take?
-- Grain: one revision of one model with one rung of settings on one machine, over all finished comparisons.
-- Columns:
--   model                                registered name
--   revision                             content hash of weights and options
--   rung                                 settings in force, for example "int8/cpu"
--   hardware                             processor, cores, memory, accelerator, as JSON
--   runs                                 finished runs with it
--   parameters                           number of parameters
--   audio_seconds                        audio in the throughput passes, in seconds
--   rtfx                                 seconds of audio per second of these passes; more is better
--   compute_share                        time inside the model / time seen by the caller, a fraction; the rest is transport
--   cpu_seconds_per_audio_second         processor time of the worker per second of audio; above 1 / rtfx it used several cores
--   peak_rss_mb                          highest resident memory of the worker in any of these runs, in MB
--   load_seconds                         median time to start the worker and load the weights, in seconds
WITH passes AS (
    SELECT
        run_id,
        arm,
        sum(audio_seconds) FILTER (WHERE "pass" = 'throughput' AND status = 'ok') AS audio_seconds,
        sum(wall_seconds) FILTER (WHERE "pass" = 'throughput' AND status = 'ok') AS wall_seconds,
        sum(compute_seconds) FILTER (WHERE "pass" = 'throughput' AND status = 'ok') AS compute_seconds,
        sum(cpu_seconds) FILTER (WHERE "pass" = 'throughput' AND status = 'ok') AS cpu_seconds,
        max(peak_rss_mb) AS peak_rss_mb
    FROM operations
    GROUP BY run_id, arm
)
SELECT
    m.model,
    m.revision,
    m.rung,
    r.hardware,
    count(DISTINCT m.run_id) AS runs,
    max(m.parameters) AS parameters,
    sum(p.audio_seconds) AS audio_seconds,
    sum(p.audio_seconds) / nullif(sum(p.wall_seconds), 0) AS rtfx,
    sum(p.compute_seconds) / nullif(sum(p.wall_seconds), 0) AS compute_share,
    sum(p.cpu_seconds) / nullif(sum(p.audio_seconds), 0) AS cpu_seconds_per_audio_second,
    max(p.peak_rss_mb) AS peak_rss_mb,
    median(m.load_seconds) AS load_seconds
FROM models m
INNER JOIN ab_runs r ON r.run_id = m.run_id AND r.finished
LEFT JOIN passes p ON p.run_id = m.run_id AND p.arm = m.arm
GROUP BY m.model, m.revision, m.rung, r.hardware
ORDER BY m.model, rtfx DESC NULLS LAST, m.revision
