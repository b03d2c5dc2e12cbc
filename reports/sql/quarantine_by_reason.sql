-- Grain: one reason at one stage of one run of any flow.
-- Columns:
--   run_id                               run
--   day                                  date on which the run started (UTC)
--   flow                                 verb of the flow, for example "compare"
--   dataset                              name of the dataset
--   stage                                where it was refused: manifest, audio, gate:ARM or model:ARM
--   category                             category of the error
--   code                                 short reason, for example "too-short"
--   severity                             warning, error or critical
--   refused                              rows of quarantine: clips, rows of the manifest, or answers
--   offered                              what the run met at such a stage: all rows of the manifest for manifest and audio, usable clips for a gate or a model
--   share                                refused / offered as a fraction
--   example                              name of one of them: the first by name
--   hint                                 what to do about it, as said of one of them
-- Example:
--   SELECT day, dataset, stage, code, refused, share, hint
--   FROM quarantine_by_reason
--   ORDER BY day DESC, refused DESC
WITH started AS (
    SELECT
        run_id,
        -- The date in UTC, whatever the time zone of the session is.
        make_timestamp(epoch_us(min("at")))::DATE AS "day",
        max(flow) AS flow,
        max(dataset) AS dataset
    FROM runs
    GROUP BY run_id
),
usable AS (
    SELECT run_id, count(*) AS clips
    FROM clips
    GROUP BY run_id
),
early AS (
    SELECT run_id, count(*) AS refused
    FROM quarantine
    WHERE stage IN ('manifest', 'audio')
    GROUP BY run_id
),
counted AS (
    SELECT
        run_id,
        stage,
        category,
        code,
        severity,
        count(*) AS refused,
        min("key") AS example,
        min(hint) AS hint
    FROM quarantine
    GROUP BY run_id, stage, category, code, severity
)
SELECT
    q.run_id,
    r."day",
    r.flow,
    r.dataset,
    q.stage,
    q.category,
    q.code,
    q.severity,
    q.refused,
    coalesce(u.clips, 0) + CASE WHEN q.stage IN ('manifest', 'audio') THEN e.refused ELSE 0 END AS offered,
    q.refused / nullif(offered, 0) AS share,
    q.example,
    q.hint
FROM counted q
LEFT JOIN started r ON r.run_id = q.run_id
LEFT JOIN usable u ON u.run_id = q.run_id
LEFT JOIN early e ON e.run_id = q.run_id
