-- Grain: the one run that a question is about; no row before the first comparison has finished.
-- Columns:
--   run_id                               the run of SET VARIABLE run = 'ID'; without it the comparison of transcripts that finished last, or of labels if there is none
-- Example:
--   SELECT r.run_id, r.dataset, r.model_a, r.model_b
--   FROM ab_runs r
--   INNER JOIN asked_run ON asked_run.run_id = r.run_id
SELECT run_id
FROM ab_runs
WHERE
    run_id = getvariable('run')::VARCHAR
    OR (getvariable('run')::VARCHAR IS NULL AND finished)
ORDER BY task = 'transcribe' DESC, finished_at DESC, run_id DESC
LIMIT 1
