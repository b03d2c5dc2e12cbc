-- Question: How did the difference between two models develop over all runs of the pair?
-- Grain: one finished run of a pair of models on a dataset.
-- Columns:
--   dataset                              name of the dataset
--   model_a, model_b                     registered name of the model of the arm
--   number                               1 for the first finished run of the pair on the dataset, then 2, 3, ...
--   finished_at                          when the run ended (UTC)
--   run_id                               run
--   wer_a, wer_b                         WER as a fraction
--   wer_difference                       wer_b - wer_a, a fraction
--   wer_ci_low, wer_ci_high              confidence interval of wer_difference, fractions
--   margin                               equivalence margin, a fraction
--   verdict                              "a better", "b better", "equivalent" or "cannot tell"
--   change                               wer_difference minus that of the run before, a fraction; empty for the first
--   verdict_changed                      whether the verdict differs from the run before; empty for the first
--   same_question                        whether the run before had the same clips, references, revisions and options; if so, any change is noise of the machine
--   revision_a, revision_b               content hash of weights and options of the arm's model
SELECT
    dataset,
    model_a,
    model_b,
    number,
    finished_at,
    run_id,
    wer_a,
    wer_b,
    wer_difference,
    wer_ci_low,
    wer_ci_high,
    margin,
    verdict,
    change,
    verdict <> previous_verdict AS verdict_changed,
    same_question,
    revision_a,
    revision_b
FROM ab_trend
ORDER BY dataset, model_a, model_b, number
