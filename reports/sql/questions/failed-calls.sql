-- Question: Which calls to a model failed, how often were they tried, and what was lost?
-- Grain: one kind of failure of one arm of the asked run.
-- Columns:
--   arm                                  "a" or "b"
--   model                                registered name of the model of the arm
--   category                             category of the error
--   code                                 short reason
--   attempts                             tries that failed this way
--   retried                              of these, tries after which the whole call was tried again
--   workers                              worker processes in which it happened
--   clips_lost                           clips that ended without an answer for this reason
--   first_at, last_at                    first and last time it happened (UTC); empty if no try was recorded
--   example                              the error as a sentence
-- Variables:
--   run                                  run id; without it the comparison that finished last
WITH failures AS (
    SELECT arm, category, code, 1 AS attempt, (action = 'retry')::BIGINT AS retried, worker_pid, 0 AS lost, "at", message
    FROM attempts
    INNER JOIN asked_run ON asked_run.run_id = attempts.run_id
    UNION ALL
    SELECT arm, error_category, error_code, 0, 0, NULL, 1, NULL, error_message
    FROM outcomes
    INNER JOIN asked_run ON asked_run.run_id = outcomes.run_id
    WHERE status = 'failed'
)
SELECT
    f.arm,
    max(CASE f.arm WHEN 'a' THEN r.model_a ELSE r.model_b END) AS model,
    f.category,
    f.code,
    sum(f.attempt)::BIGINT AS attempts,
    sum(f.retried)::BIGINT AS retried,
    count(DISTINCT f.worker_pid) AS workers,
    sum(f.lost)::BIGINT AS clips_lost,
    min(f."at") AS first_at,
    max(f."at") AS last_at,
    min(f.message) AS example
FROM failures f
CROSS JOIN asked_run
INNER JOIN ab_runs r ON r.run_id = asked_run.run_id
GROUP BY f.arm, f.category, f.code
ORDER BY clips_lost DESC, attempts DESC, f.arm, f.code
