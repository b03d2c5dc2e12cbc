-- Question: Why were clips or answers refused, day by day?
-- Grain: one reason at one stage on one day (UTC) for one dataset.
-- Columns:
--   day                                  date on which the runs started (UTC)
--   dataset                              name of the dataset
--   stage                                where it was refused: manifest, audio, gate:ARM or model:ARM
--   code                                 short reason, for example "too-short"
--   severity                             warning, error or critical
--   refused                              clips, rows of the manifest or answers refused
--   runs                                 runs of that day in which it happened
--   share                                refused / what these runs met at such a stage, a fraction
--   example                              name of one of them
--   hint                                 what to do about it
SELECT
    "day",
    dataset,
    stage,
    code,
    severity,
    sum(refused)::BIGINT AS refused,
    count(DISTINCT run_id) AS runs,
    sum(refused) / nullif(sum(offered), 0) AS share,
    min(example) AS example,
    min(hint) AS hint
FROM quarantine_by_reason
GROUP BY "day", dataset, stage, code, severity
ORDER BY "day" DESC, refused DESC, dataset, stage, code
