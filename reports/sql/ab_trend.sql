-- Grain: one finished run of the compare flow whose WER was tested, beside the run of the same pair on the same dataset before it. The same models in the other order are another pair.
-- Columns:
--   run_id                               run
--   finished_at                          when the run ended (UTC)
--   dataset                              name of the dataset
--   model_a, model_b                     registered name of the model of the arm
--   revision_a, revision_b               content hash of weights and options of the arm's model
--   number                               1 for the first finished run of the pair on the dataset, then 2, 3, ...
--   same_question                        whether the run before had the same key: clips, references, revisions and options
--   clips                                clips both arms answered
--   clusters                             independent units behind the interval
--   wer_a, wer_b                         WER as a fraction
--   wer_difference                       wer_b - wer_a, a fraction
--   wer_ci_low, wer_ci_high              confidence interval of wer_difference, fractions
--   confidence                           level of the interval as a fraction, for example 0.95
--   margin                               equivalence margin of the WER, a fraction
--   verdict                              "a better", "b better", "equivalent" or "cannot tell"
--   previous_run_id                      the run of the pair on the dataset before this one, empty for the first
--   previous_wer_difference              its wer_difference, a fraction
--   previous_verdict                     its verdict
--   change                               wer_difference - previous_wer_difference, a fraction
-- Example:
--   SELECT finished_at, model_a, model_b, wer_difference, wer_ci_low, wer_ci_high, verdict, change
--   FROM ab_trend
--   ORDER BY dataset, model_a, model_b, number
SELECT
    r.run_id,
    r.finished_at,
    r.dataset,
    r.model_a,
    r.model_b,
    r.revision_a,
    r.revision_b,
    row_number() OVER pair AS number,
    r.run_key = lag(r.run_key) OVER pair AS same_question,
    t.clips,
    t.clusters,
    t.a AS wer_a,
    t.b AS wer_b,
    t.difference AS wer_difference,
    t.ci_low AS wer_ci_low,
    t.ci_high AS wer_ci_high,
    t.confidence,
    t.margin,
    t.verdict,
    lag(r.run_id) OVER pair AS previous_run_id,
    lag(t.difference) OVER pair AS previous_wer_difference,
    lag(t.verdict) OVER pair AS previous_verdict,
    t.difference - lag(t.difference) OVER pair AS change
FROM ab_runs r
INNER JOIN comparisons t ON t.run_id = r.run_id AND t.metric = 'wer'
WHERE r.finished AND r.task = 'transcribe'
WINDOW pair AS (PARTITION BY r.dataset, r.model_a, r.model_b ORDER BY r.finished_at, r.run_id)
