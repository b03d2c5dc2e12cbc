-- Grain: one run of the compare flow whose verdict was tried under every recorded choice of scoring.
-- Columns:
--   run_id                               run
--   finished                             whether the run reached its end
--   dataset                              name of the dataset
--   model_a, model_b                     registered name of the model of the arm
--   verdict                              verdict of the chosen analysis; see table comparisons for the run's own
--   analyses                             ways of scoring that were tried
--   agreeing                             how many of them come to the same verdict
--   a_better, b_better                   in how many of them the arm is better
--   equivalent, cannot_tell              in how many of them the arms are equivalent, or nothing can be told
--   lowest_difference                    smallest wer_b - wer_a of all analyses, as a fraction
--   highest_difference                   largest wer_b - wer_a of all analyses, as a fraction
-- Example:
--   SELECT run_id, verdict, agreeing, analyses
--   FROM ab_fragility
--   WHERE finished
--   ORDER BY agreeing / analyses
SELECT
    r.run_id,
    r.finished,
    r.dataset,
    r.model_a,
    r.model_b,
    max(x.verdict) FILTER (WHERE x.chosen) AS verdict,
    count(*) AS analyses,
    count(*) FILTER (WHERE x.agrees) AS agreeing,
    count(*) FILTER (WHERE x.verdict = 'a better') AS a_better,
    count(*) FILTER (WHERE x.verdict = 'b better') AS b_better,
    count(*) FILTER (WHERE x.verdict = 'equivalent') AS equivalent,
    count(*) FILTER (WHERE x.verdict = 'cannot tell') AS cannot_tell,
    min(x.difference) AS lowest_difference,
    max(x.difference) AS highest_difference
FROM ab_runs r
INNER JOIN analyses x ON x.run_id = r.run_id
GROUP BY r.run_id, r.finished, r.dataset, r.model_a, r.model_b
