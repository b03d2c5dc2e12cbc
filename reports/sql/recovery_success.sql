-- Grain: one category of error of one model in one run, over the calls whose first try failed that way.
-- Columns:
--   run_id             run; live requests of a day are in the run live-DATE
--   model              registered name of the model that was asked
--   category           category of the first error of the call
--   calls              calls whose first try failed with it; each model that a request asked counts by itself
--   tries_failed       tries of these calls that failed
--   recovered          calls that were answered in the end by the same model: by a later try, or in parts
--   recovery_rate      recovered / calls, a fraction
--   most_common_code   code of most of these first errors
-- Example:
--   SELECT model, category, calls, round(recovery_rate, 3) AS recovery_rate
--   FROM recovery_success
--   ORDER BY calls DESC
WITH tried AS (
    SELECT
        t.run_id,
        coalesce(t.model, m.model) AS model,
        t.arm,
        -- Parts of a call that was split are REQUEST/MODEL/PART: what begins alike is one call.
        CASE WHEN t.arm = '' THEN split_part(t.call, '/', 1) || '/' || split_part(t.call, '/', 2) ELSE t.call END AS call,
        t.call AS part,
        t.attempt,
        t."at",
        t.category,
        t.code,
        t.action
    FROM attempts t
    LEFT JOIN models m ON m.run_id = t.run_id AND m.arm = t.arm
),
lost AS (
    SELECT run_id, arm, batch_id AS call, count(*) FILTER (WHERE status = 'failed') AS clips
    FROM outcomes
    GROUP BY run_id, arm, batch_id
),
parts AS (
    SELECT run_id, model, arm, call, part, arg_max(action, attempt) AS last_action
    FROM tried
    GROUP BY run_id, model, arm, call, part
),
ended AS (
    SELECT run_id, model, arm, call, bool_and(last_action <> 'give up') AS no_part_lost
    FROM parts
    GROUP BY run_id, model, arm, call
),
calls AS (
    SELECT
        t.run_id,
        t.model,
        t.arm,
        t.call,
        arg_min(t.category, (t."at", t.attempt)) AS category,
        arg_min(t.code, (t."at", t.attempt)) AS code,
        count(*) FILTER (WHERE t.action <> 'answered') AS failed
    FROM tried t
    GROUP BY t.run_id, t.model, t.arm, t.call
)
SELECT
    c.run_id,
    c.model,
    c.category,
    count(*) AS calls,
    sum(c.failed)::BIGINT AS tries_failed,
    count(*) FILTER (WHERE e.no_part_lost AND coalesce(l.clips, 0) = 0) AS recovered,
    count(*) FILTER (WHERE e.no_part_lost AND coalesce(l.clips, 0) = 0) / count(*) AS recovery_rate,
    mode(c.code) AS most_common_code
FROM calls c
INNER JOIN ended e ON e.run_id = c.run_id AND e.model IS NOT DISTINCT FROM c.model AND e.arm = c.arm AND e.call = c.call
LEFT JOIN lost l ON l.run_id = c.run_id AND l.arm = c.arm AND l.call = c.call
GROUP BY c.run_id, c.model, c.category
